-- lock: rows (skips locked ones); index: jobs_ended_pkey, attempts_pkey, keys_job; guard: final
WITH picked AS MATERIALIZED (
    SELECT e.id FROM mailrace.jobs_ended AS e
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
    ORDER BY e.id LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_ended AS e WHERE e.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING e.queue, e.batch_id, e.state AS state
),
attempts_gone AS (
    DELETE FROM mailrace.attempts AS a WHERE a.job_id = ANY (ARRAY(SELECT p.id FROM picked AS p))
),
keys_gone AS (
    DELETE FROM mailrace.keys AS k WHERE k.job_id = ANY (ARRAY(SELECT p.id FROM picked AS p))
),
tallied AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT g.queue, coalesce(g.batch_id, 0), g.state, -count(*), coalesce(%(now)s::timestamptz, now())
    FROM gone AS g GROUP BY 1, 2, 3
)
SELECT count(*) FROM gone
