-- lock: none (inside the write that chose); index: jobs.id, jobs_blocked
-- The keys for which others wait that were set aside.
SELECT DISTINCT j.queue, j.key
FROM temp.chosen AS c CROSS JOIN jobs AS j ON j.id = c.id
WHERE j.key IS NOT NULL
    AND EXISTS (SELECT 1 FROM jobs AS b WHERE b.queue = j.queue AND b.key = j.key AND b.blocked)
