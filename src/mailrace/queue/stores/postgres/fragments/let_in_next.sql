-- needs: leaving (id, queue, key, blocked); gives: an update of as many others of their keys
-- Each of them may have been the one that was let go when a job with its key ended: the next
-- one of the key is let go in its place. One too many is blocked again by its claim.
UPDATE mailrace.jobs AS j SET blocked = false
WHERE j.id = ANY (ARRAY(
    SELECT b.id
    FROM (
        SELECT l.queue, l.key, count(*) AS jobs FROM leaving AS l
        WHERE l.key IS NOT NULL AND NOT l.blocked GROUP BY l.queue, l.key
    ) AS f
    CROSS JOIN LATERAL (
        SELECT w.id FROM mailrace.jobs AS w
        WHERE w.blocked AND w.queue = f.queue AND w.key = f.key
            AND w.id NOT IN (SELECT l.id FROM leaving AS l)
        ORDER BY w.run_at, w.id LIMIT f.jobs
        FOR UPDATE SKIP LOCKED
    ) AS b
))
