-- lock: rows (skips locked ones); index: jobs_ended_pkey, jobs_ended_batch, jobs_ended_state, jobs_unique; guard: no live job has its unique key
-- A deadline that is over would end it again at once, and goes.
WITH target (state) AS (VALUES ('available'::mailrace.job_state)),
picked AS MATERIALIZED (
    SELECT e.* FROM mailrace.jobs_ended AS e
    WHERE %(ended)s::boolean
        -- fragment: matching
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
leaving AS (
    DELETE FROM mailrace.jobs_ended AS e
    WHERE e.id = ANY (ARRAY(SELECT b.id FROM back AS b))
    RETURNING e.queue, e.batch_id, e.state
),
tallied AS (
    -- fragment: tally_moves
),
told AS (
    SELECT pg_notify('mailrace', q.queue) AS told FROM (SELECT DISTINCT queue FROM leaving) AS q
)
SELECT count(*), (SELECT count(t.told) FROM told AS t) FROM leaving
