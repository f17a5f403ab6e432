-- lock: rows (skips locked ones); index: jobs_ended_pkey, jobs_ended_batch, jobs_ended_state, jobs_unique; guard: no live job has its unique key
-- A deadline that is over would end it again at once, and goes.
WITH picked AS MATERIALIZED (
    SELECT e.* FROM mailrace.jobs_ended AS e
    WHERE %(ended)s::boolean
        AND (%(ids)s::bigint[] IS NULL OR e.id = ANY (%(ids)s))
        AND (%(states)s::mailrace.job_state[] IS NULL OR e.state = ANY (%(states)s))
        AND (%(queue)s::text IS NULL OR e.queue = %(queue)s)
        AND (%(kind)s::text IS NULL OR e.kind = %(kind)s)
        AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
        AND (%(batch_id)s::bigint IS NULL OR e.batch_id = %(batch_id)s)
        AND (%(tag)s::text IS NULL OR %(tag)s = ANY (e.tags))
        AND (%(category)s::text IS NULL OR coalesce(e.category, '') = %(category)s)
        AND (%(reason)s::text IS NULL OR coalesce(e.reason, '') = %(reason)s)
        AND (%(text)s::text IS NULL OR strpos(
            lower(concat_ws(E'\n', e.reason, e.detail, e.payload)), lower(%(text)s)
        ) > 0)
        AND (%(ended_before_ms)s::bigint IS NULL OR e.ended_at < mailrace.moment(%(ended_before_ms)s))
        AND (%(ended_after_ms)s::bigint IS NULL OR e.ended_at >= mailrace.moment(%(ended_after_ms)s))
        AND NOT EXISTS (SELECT FROM mailrace.jobs AS u WHERE u.unique_digest = e.unique_digest)
    ORDER BY e.id LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED
),
back AS (
    INSERT INTO mailrace.jobs (
        id, run_at, created_at, expires_at, batch_id, priority, attempts, queue, tenant, kind, lane,
        key, unique_digest, tags, payload
    )
    SELECT
        p.id, coalesce(%(now)s::timestamptz, now()), p.created_at,
        CASE WHEN p.expires_at > coalesce(%(now)s::timestamptz, now()) THEN p.expires_at END,
        p.batch_id, p.priority, p.attempts, p.queue, p.tenant, p.kind, p.lane,
        p.key, p.unique_digest, p.tags, p.payload
    FROM picked AS p
    ON CONFLICT DO NOTHING
    RETURNING id
),
gone AS (
    DELETE FROM mailrace.jobs_ended AS e
    WHERE e.id = ANY (ARRAY(SELECT b.id FROM back AS b))
    RETURNING e.queue, e.batch_id, e.state
),
tallied AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT g.queue, coalesce(g.batch_id, 0), s.state, sum(s.jobs), coalesce(%(now)s::timestamptz, now())
    FROM gone AS g
    CROSS JOIN LATERAL (VALUES (g.state, -1), ('available'::mailrace.job_state, 1)) AS s (state, jobs)
    GROUP BY 1, 2, 3 HAVING sum(s.jobs) <> 0
),
told AS (
    SELECT pg_notify('mailrace', q.queue) AS told FROM (SELECT DISTINCT queue FROM gone) AS q
)
SELECT count(*), (SELECT count(t.told) FROM told AS t) FROM gone
