-- lock: none; index: jobs_pkey, jobs_completed_id, jobs_ended_pkey, attempts_pkey
SELECT
    job.*,
    (
        SELECT coalesce(json_agg(json_build_object(
            'lease', t.lease, 'attempt', t.attempt, 'at_ms', mailrace.unix_ms(t.at), 'step', t.step,
            'category', t.category, 'reason', t.reason, 'detail', t.detail
        ) ORDER BY t.lease), '[]')
        FROM mailrace.attempts AS t WHERE t.job_id = job.id
    ) AS attempts
FROM (
    SELECT
        -- fragment: row
        , payload, NULL::json AS result
    FROM
        -- fragment: live_jobs
    WHERE id = %(id)s
    UNION ALL
    SELECT
        -- fragment: row
        , payload, result
    FROM
        -- fragment: completed_jobs
    WHERE id = %(id)s
    UNION ALL
    SELECT
        -- fragment: row
        , payload, NULL::json
    FROM mailrace.jobs_ended AS e WHERE id = %(id)s
) AS job
