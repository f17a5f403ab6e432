-- lock: the jobs taken, passing over locked ones, and the process against its end; index: jobs_ready, jobs_pkey; guard: state, due, queue not paused, process known
WITH wants AS MATERIALIZED (
    SELECT
        w.*, coalesce(q.paused, false) AS paused,
        coalesce(q.concurrency, q.concurrency_per_key) IS NOT NULL AS gated
    FROM unnest(
        %(queues)s::text[], %(tenants)s::text[], %(priorities)s::smallint[], %(jobs)s::integer[],
        %(since_ms)s::bigint[]
    ) WITH ORDINALITY AS w (queue, tenant, priority, jobs, since_ms, place)
    LEFT JOIN mailrace.queues AS q ON q.name = w.queue
),
due AS MATERIALIZED (
    SELECT w.place, j.id, j.state, j.run_at
    FROM wants AS w
    CROSS JOIN LATERAL (
        SELECT id, state, run_at FROM mailrace.jobs
        WHERE state IN ('scheduled', 'available', 'retryable') AND NOT blocked
            AND queue = w.queue AND tenant = w.tenant AND priority = w.priority
            AND run_at >= coalesce(mailrace.moment(w.since_ms), '-infinity')
            AND run_at <= coalesce(%(now)s::timestamptz, now())
        ORDER BY run_at, id LIMIT w.jobs
        FOR UPDATE SKIP LOCKED
    ) AS j
    WHERE NOT w.paused AND NOT w.gated
),
-- Only where there is something to take: an idle process writes nothing.
lease AS MATERIALIZED (
    SELECT nextval('mailrace.leases') AS number FROM mailrace.processes
    WHERE id = %(process_id)s::bigint AND EXISTS (SELECT FROM due)
    FOR KEY SHARE
),
taken AS (
    UPDATE mailrace.jobs AS j SET
        state = 'running', lease = lease.number, process_id = %(process_id)s::bigint,
        attempt = least(j.attempt + 1, 32767), begun = false, gated = false,
        once = coalesce(j.lane = 'campaign', j.kind = ANY (%(once)s::text[]))
    FROM lease
    WHERE j.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING j.*
),
told AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT s.queue, s.batch_id, t.state, t.jobs, coalesce(%(now)s::timestamptz, now())
    FROM (
        SELECT t.queue, coalesce(t.batch_id, 0) AS batch_id, d.state, count(*) AS jobs
        FROM taken AS t JOIN due AS d ON d.id = t.id GROUP BY 1, 2, 3
    ) AS s
    CROSS JOIN LATERAL (VALUES (s.state, -s.jobs), ('running', s.jobs)) AS t (state, jobs)
)
SELECT
    CASE
        WHEN EXISTS (SELECT FROM due) THEN EXISTS (SELECT FROM lease)
        ELSE EXISTS (SELECT FROM mailrace.processes WHERE id = %(process_id)s::bigint)
    END AS known,
    (
        SELECT json_agg(
            json_build_array(
                t.id, t.lease, t.attempt, t.once, t.kind, t.queue, t.tenant, t.priority, t.deaths,
                t.key, t.batch_id, t.attempts, mailrace.unix_ms(t.created_at),
                mailrace.unix_ms(t.expires_at), t.payload
            )
            ORDER BY d.place, d.run_at, d.id
        )::text
        FROM taken AS t JOIN due AS d ON d.id = t.id
    ) AS jobs,
    (
        SELECT json_agg(json_build_array(r.place - 1, r.jobs, r.last))::text
        FROM (
            SELECT place, count(*) AS jobs, mailrace.unix_ms(max(run_at)) AS last FROM due GROUP BY place
        ) AS r
    ) AS reached,
    ARRAY(SELECT DISTINCT queue FROM wants WHERE gated) AS gated
