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
    j.id, j.state AS state, j.kind, j.queue, j.tenant, j.priority, j.attempt, j.attempts,
    j.deaths, j.snoozes, j.key, j.batch_id, coalesce(j.tags, '{}') AS tags, j.lane,
    mailrace.unix_ms(j.created_at) AS created_ms, mailrace.unix_ms(j.run_at) AS run_at_ms,
    mailrace.unix_ms(j.expires_at) AS expires_ms, NULL::bigint AS ended_ms, j.process_id,
    coalesce(a.category, '') AS category, coalesce(a.reason, '') AS reason,
    coalesce(a.detail, '') AS detail,
    j.payload, NULL::json AS result
    FROM mailrace.jobs AS j
    LEFT JOIN LATERAL (
        SELECT l.category, l.reason, l.detail FROM mailrace.attempts AS l
        WHERE l.job_id = j.id ORDER BY l.lease DESC LIMIT 1
    ) AS a ON true
    WHERE j.id = %(id)s
    UNION ALL
    SELECT
    c.id, 'completed'::mailrace.job_state AS state, c.kind, c.queue, c.tenant, c.priority, c.attempt, c.attempts,
    c.deaths, c.snoozes, c.key, c.batch_id, coalesce(c.tags, '{}') AS tags, c.lane,
    mailrace.unix_ms(c.created_at) AS created_ms, mailrace.unix_ms(c.run_at) AS run_at_ms,
    NULL::bigint AS expires_ms, mailrace.unix_ms(c.ended_at) AS ended_ms, c.process_id,
    '' AS category, c.reason, c.detail,
    c.payload, c.result
    FROM mailrace.jobs_completed AS c WHERE c.id = %(id)s
    UNION ALL
    SELECT
    e.id, e.state AS state, e.kind, e.queue, e.tenant, e.priority, e.attempt, e.attempts,
    e.deaths, e.snoozes, e.key, e.batch_id, coalesce(e.tags, '{}') AS tags, e.lane,
    mailrace.unix_ms(e.created_at) AS created_ms, mailrace.unix_ms(e.run_at) AS run_at_ms,
    mailrace.unix_ms(e.expires_at) AS expires_ms, mailrace.unix_ms(e.ended_at) AS ended_ms, e.process_id,
    e.category, e.reason, e.detail,
    e.payload, NULL::json
    FROM mailrace.jobs_ended AS e WHERE e.id = %(id)s
) AS job
