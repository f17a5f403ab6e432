-- lock: none; index: jobs_ready
-- A skip scan: one seek for each queue that has waiting jobs.
WITH RECURSIVE names (name) AS (
    SELECT (
        SELECT queue FROM jobs
        WHERE queue >= '' AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
        ORDER BY queue LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT queue FROM jobs
        WHERE queue > name AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
        ORDER BY queue LIMIT 1
    )
    FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
