-- lock: rows (skips locked ones); index: jobs_completed_id, attempts_pkey, keys_job; guard: final
WITH picked AS MATERIALIZED (
    SELECT c.id FROM mailrace.jobs_completed AS c
    WHERE %(completed)s::boolean
        AND (%(ids)s::bigint[] IS NULL OR c.id = ANY (%(ids)s))
        AND (%(queue)s::text IS NULL OR c.queue = %(queue)s)
        AND (%(kind)s::text IS NULL OR c.kind = %(kind)s)
        AND (%(tenant)s::text IS NULL OR c.tenant = %(tenant)s)
        AND (%(batch_id)s::bigint IS NULL OR c.batch_id = %(batch_id)s)
        AND (%(tag)s::text IS NULL OR %(tag)s = ANY (c.tags))
        AND (%(reason)s::text IS NULL OR coalesce(c.reason, '') = %(reason)s)
        AND (%(text)s::text IS NULL OR strpos(
            lower(concat_ws(E'\n', c.reason, c.detail, c.payload)), lower(%(text)s)
        ) > 0)
        AND (%(ended_before_ms)s::bigint IS NULL OR c.ended_at < mailrace.moment(%(ended_before_ms)s))
        AND (%(ended_after_ms)s::bigint IS NULL OR c.ended_at >= mailrace.moment(%(ended_after_ms)s))
    ORDER BY c.id LIMIT %(limit)s
    FOR UPDATE OF c SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_completed AS c WHERE c.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING c.queue, c.batch_id, 'completed'::mailrace.job_state AS state
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
