-- lock: rows (skips locked ones); index: jobs_blocked, gates_pkey, jobs_pkey; guard: blocked
-- As many of each key as may run beside those that do, or all where nothing bounds the key.
WITH line AS (
    SELECT j.queue, j.key FROM mailrace.jobs AS j
    WHERE j.blocked AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
    GROUP BY j.queue, j.key
),
room AS (
    SELECT l.queue, l.key, q.concurrency_per_key - coalesce(g.running, 0) AS jobs
    FROM line AS l
    LEFT JOIN mailrace.queues AS q ON q.name = l.queue
    LEFT JOIN mailrace.gates AS g ON g.queue = l.queue AND g.key = l.key
),
chosen AS (
    SELECT b.id FROM room AS r
    CROSS JOIN LATERAL (
        SELECT j.id FROM mailrace.jobs AS j
        WHERE j.blocked AND j.queue = r.queue AND j.key IS NOT DISTINCT FROM r.key
        ORDER BY j.run_at, j.id LIMIT CASE WHEN r.jobs IS NOT NULL THEN greatest(r.jobs, 0) END
        FOR UPDATE SKIP LOCKED
    ) AS b
)
UPDATE mailrace.jobs AS j SET blocked = false
WHERE j.id = ANY (ARRAY(SELECT c.id FROM chosen AS c))
