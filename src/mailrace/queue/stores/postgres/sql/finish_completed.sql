-- lock: the jobs that end; index: jobs_pkey; guard: lease, state running
-- The state is compared as text so that the planner does not take jobs_running: when nothing ran as
-- statistics were made it seems to be empty, and may be full of what was.
WITH ended AS MATERIALIZED (
    SELECT f.id, f.lease, f.reason, f.detail, coalesce(f.result_text::json, f.result) AS result
    FROM json_to_recordset(%(records)s::json) AS f (
        id bigint, lease bigint, reason text, detail text, result json, result_text text
    )
),
gone AS (
    DELETE FROM mailrace.jobs AS j USING ended AS e
    WHERE j.id = e.id AND j.lease = e.lease AND j.state::text = 'running'
    RETURNING j.*, e.reason, e.detail, e.result
),
kept AS (
    INSERT INTO mailrace.jobs_completed (
        id, ended_at, created_at, run_at, lease, process_id, batch_id, priority, attempt, attempts,
        deaths, snoozes, queue, tenant, kind, lane, key, reason, detail, tags, result, payload
    )
    SELECT
        id, coalesce(%(now)s::timestamptz, now()), created_at, run_at, lease, process_id, batch_id,
        priority, attempt, attempts, deaths, snoozes, queue, tenant, kind, lane, key,
        coalesce(reason, ''), coalesce(detail, ''), tags, result, payload
    FROM gone
),
told AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT s.queue, s.batch_id, t.state, t.jobs, coalesce(%(now)s::timestamptz, now())
    FROM (
        SELECT queue, coalesce(batch_id, 0) AS batch_id, count(*) AS jobs FROM gone GROUP BY 1, 2
    ) AS s
    CROSS JOIN LATERAL (
        VALUES ('running'::mailrace.job_state, -s.jobs), ('completed', s.jobs)
    ) AS t (state, jobs)
)
SELECT
    (SELECT count(*) FROM gone),
    (
        SELECT mailrace.leave_gates(array_agg(queue), array_agg(key))
        FROM gone WHERE gated HAVING count(*) > 0
    )
