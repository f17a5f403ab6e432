-- lock: none; index: jobs_ready, one descent a queue
WITH RECURSIVE found AS (
    (
        SELECT queue FROM mailrace.jobs
        WHERE state IN ('scheduled', 'available', 'retryable') AND NOT blocked
        ORDER BY queue LIMIT 1
    )
    UNION ALL
    SELECT next.queue
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT j.queue FROM mailrace.jobs AS j
        WHERE j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
            AND j.queue > f.queue
        ORDER BY j.queue LIMIT 1
    ) AS next
)
SELECT queue FROM found
