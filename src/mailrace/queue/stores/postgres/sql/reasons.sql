-- lock: none; index: jobs_ended_batch, jobs_batch, attempts_pkey
SELECT state, reason, detail, count(*) AS jobs
FROM (
    SELECT
        e.state::text AS state, e.reason,
        first_value(e.detail) OVER (PARTITION BY e.state, e.reason ORDER BY e.id) AS detail
    FROM mailrace.jobs_ended AS e
    WHERE e.batch_id = %(batch_id)s::bigint AND e.state IN ('failed', 'uncertain')
    UNION ALL
    SELECT 'retryable', r.reason,
        first_value(r.detail) OVER (PARTITION BY r.reason ORDER BY r.id)
    FROM (
        SELECT j.id, coalesce(a.reason, '') AS reason, coalesce(a.detail, '') AS detail
        FROM mailrace.jobs AS j
        -- fragment: last_attempt
        WHERE j.batch_id = %(batch_id)s::bigint AND j.state = 'retryable'
    ) AS r
) AS unwell
GROUP BY state, reason, detail
ORDER BY jobs DESC, state, reason LIMIT 20
