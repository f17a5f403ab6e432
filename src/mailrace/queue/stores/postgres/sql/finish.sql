-- lock: the jobs that end, in the order of their ids; index: jobs_pkey; guard: lease, state running
-- The state is compared as text so that the planner does not take jobs_running: when nothing ran as
-- statistics were made it seems to be empty, and may be full of what was.
WITH held AS MATERIALIZED (
    SELECT
        f.step AS asked, f.delay_ms, f.reason, f.detail, f.category,
        coalesce(f.result_text::json, f.result) AS result,
        j.id, j.queue, j.batch_id, j.key, j.gated, j.attempt, j.lease, j.deaths,
        CASE
            WHEN j.cancel_requested AND f.step IN ('retry', 'snooze', 'release', 'die')
                THEN 'cancel'
            WHEN f.step = 'die' AND j.deaths + 1 >= %(deaths_max)s::integer THEN 'fail'
            ELSE f.step
        END AS step
    FROM json_to_recordset(%(records)s::json) AS f (
        id bigint, lease bigint, step text, delay_ms bigint, reason text, detail text,
        category text, result json, result_text text
    )
    JOIN mailrace.jobs AS j ON j.id = f.id AND j.lease = f.lease AND j.state::text = 'running'
    ORDER BY j.id
    FOR UPDATE OF j
),
ended AS MATERIALIZED (
    SELECT
        h.id, h.queue, h.batch_id, h.key, h.gated, h.lease, h.asked, h.step, h.result,
        h.attempt AS tried,
        -- Being claimed, put off, or killed is no attempt.
        h.attempt - (h.asked IN ('release', 'snooze', 'die'))::integer AS attempt,
        least(h.deaths + (h.asked = 'die')::integer, 32767) AS deaths,
        (CASE h.step
            WHEN 'complete' THEN 'completed' WHEN 'fail' THEN 'failed' WHEN 'lose' THEN 'uncertain'
            WHEN 'cancel' THEN 'cancelled' WHEN 'expire' THEN 'expired' WHEN 'retry' THEN 'retryable'
            WHEN 'snooze' THEN 'scheduled' ELSE 'available'
        END)::mailrace.job_state AS state,
        CASE WHEN h.step IN ('retry', 'snooze')
            THEN coalesce(%(now)s::timestamptz, now())
                + mailrace.milliseconds(coalesce(h.delay_ms, 0))
        END AS run_at,
        CASE
            WHEN h.asked = 'die' AND h.step = 'fail' THEN 'worker died'
            ELSE coalesce(h.reason, '')
        END AS reason,
        coalesce(h.detail, '') AS detail,
        CASE WHEN h.asked = 'die' AND h.step = 'fail' THEN 'system' ELSE coalesce(h.category, '') END
            AS category
    FROM held AS h
),
gone AS (
    DELETE FROM mailrace.jobs AS j USING ended AS e
    WHERE j.id = e.id AND e.state IN ('completed', 'failed', 'cancelled', 'expired', 'uncertain')
    RETURNING j.*, e.state AS final, e.attempt AS counted, e.deaths AS died, e.reason, e.detail,
        e.category, e.result
),
completed AS (
    INSERT INTO mailrace.jobs_completed (
        id, ended_at, created_at, run_at, lease, process_id, batch_id, priority, attempt, attempts,
        deaths, snoozes, queue, tenant, kind, lane, key, reason, detail, tags, result, payload
    )
    SELECT
        id, coalesce(%(now)s::timestamptz, now()), created_at, run_at, lease, process_id, batch_id,
        priority, counted, attempts, died, snoozes, queue, tenant, kind, lane, key, reason, detail,
        tags, result, payload
    FROM gone WHERE final = 'completed'
),
others AS (
    INSERT INTO mailrace.jobs_ended (
        id, state, ended_at, created_at, run_at, expires_at, lease, process_id, batch_id, priority,
        attempt, attempts, deaths, snoozes, queue, tenant, kind, lane, key, unique_digest,
        category, reason, detail, tags, payload
    )
    SELECT
        id, final, coalesce(%(now)s::timestamptz, now()), created_at, run_at, expires_at, lease,
        process_id, batch_id, priority, counted, attempts, died, snoozes, queue, tenant, kind, lane,
        key, unique_digest, category, reason, detail, tags, payload
    FROM gone WHERE final <> 'completed'
),
back AS (
    UPDATE mailrace.jobs AS j SET
        state = e.state, run_at = coalesce(e.run_at, j.run_at), attempt = e.attempt,
        deaths = e.deaths, snoozes = j.snoozes + (e.step = 'snooze')::integer,
        process_id = NULL, begun = false, gated = false
    FROM ended AS e
    WHERE j.id = e.id AND e.state IN ('available', 'scheduled', 'retryable')
),
tried AS (
    INSERT INTO mailrace.attempts (job_id, lease, attempt, at, step, category, reason, detail)
    SELECT
        id, lease, tried, coalesce(%(now)s::timestamptz, now()), asked, category, reason, detail
    FROM ended WHERE asked IN ('fail', 'retry', 'lose', 'die', 'cancel', 'expire')
    ON CONFLICT (job_id, lease) DO NOTHING
),
told AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT s.queue, s.batch_id, t.state, t.jobs, coalesce(%(now)s::timestamptz, now())
    FROM (
        SELECT queue, coalesce(batch_id, 0) AS batch_id, state, count(*) AS jobs
        FROM ended GROUP BY 1, 2, 3
    ) AS s
    CROSS JOIN LATERAL (
        VALUES ('running'::mailrace.job_state, -s.jobs), (s.state, s.jobs)
    ) AS t (state, jobs)
)
SELECT
    (SELECT count(*) FROM ended),
    (
        SELECT mailrace.leave_gates(array_agg(queue), array_agg(key))
        FROM ended WHERE gated HAVING count(*) > 0
    )
