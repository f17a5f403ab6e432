-- lock: rows (skips locked ones); index: jobs_pkey, jobs_batch; guard: waiting, or running and not asked yet
-- Matched without a lock and picked with one: where the second are fewer, somebody is at the rest.
WITH matched AS MATERIALIZED (
    SELECT j.id FROM mailrace.jobs AS j
    LEFT JOIN LATERAL (
        SELECT l.category, l.reason, l.detail FROM mailrace.attempts AS l
        WHERE l.job_id = j.id ORDER BY l.lease DESC LIMIT 1
    ) AS a ON true
    WHERE %(live)s::boolean
        AND (j.state IN ('scheduled', 'available', 'retryable') OR j.state = 'running' AND NOT j.cancel_requested)
        AND (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s))
        AND (%(states)s::mailrace.job_state[] IS NULL OR j.state = ANY (%(states)s))
        AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
        AND (%(kind)s::text IS NULL OR j.kind = %(kind)s)
        AND (%(tenant)s::text IS NULL OR j.tenant = %(tenant)s)
        AND (%(batch_id)s::bigint IS NULL OR j.batch_id = %(batch_id)s)
        AND (%(tag)s::text IS NULL OR %(tag)s = ANY (j.tags))
        AND (%(category)s::text IS NULL OR coalesce(a.category, '') = %(category)s)
        AND (%(reason)s::text IS NULL OR coalesce(a.reason, '') = %(reason)s)
        AND (%(text)s::text IS NULL OR strpos(
            lower(concat_ws(E'\n', a.reason, a.detail, j.payload)), lower(%(text)s)
        ) > 0)
    ORDER BY j.id LIMIT %(limit)s
),
picked AS MATERIALIZED (
    SELECT j.id, j.state = 'running' AS running FROM mailrace.jobs AS j
    WHERE j.id = ANY (ARRAY(SELECT m.id FROM matched AS m))
        AND (j.state IN ('scheduled', 'available', 'retryable') OR j.state = 'running' AND NOT j.cancel_requested)
    FOR UPDATE OF j SKIP LOCKED
),
asked AS (
    UPDATE mailrace.jobs AS j SET cancel_requested = true
    WHERE j.id = ANY (ARRAY(SELECT p.id FROM picked AS p WHERE p.running))
),
gone AS (
    DELETE FROM mailrace.jobs AS j
    WHERE j.id = ANY (ARRAY(SELECT p.id FROM picked AS p WHERE NOT p.running))
    RETURNING j.*
),
moved AS (
    INSERT INTO mailrace.jobs_ended (
        id, state, ended_at, created_at, run_at, expires_at, lease, process_id, batch_id, priority,
        attempt, attempts, deaths, snoozes, queue, tenant, kind, lane, key, unique_digest,
        category, reason, detail, tags, payload
    )
    SELECT
        g.id, 'cancelled', coalesce(%(now)s::timestamptz, now()), g.created_at, g.run_at, g.expires_at,
        g.lease, g.process_id, g.batch_id, g.priority, g.attempt, g.attempts, g.deaths, g.snoozes,
        g.queue, g.tenant, g.kind, g.lane, g.key, g.unique_digest,
        coalesce(a.category, ''), coalesce(a.reason, ''), coalesce(a.detail, ''), g.tags, g.payload
    FROM gone AS g
    LEFT JOIN LATERAL (
        SELECT l.category, l.reason, l.detail FROM mailrace.attempts AS l
        WHERE l.job_id = g.id ORDER BY l.lease DESC LIMIT 1
    ) AS a ON true
),
tallied AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT g.queue, coalesce(g.batch_id, 0), s.state, sum(s.jobs), coalesce(%(now)s::timestamptz, now())
    FROM gone AS g
    CROSS JOIN LATERAL (VALUES (g.state, -1), ('cancelled'::mailrace.job_state, 1)) AS s (state, jobs)
    GROUP BY 1, 2, 3 HAVING sum(s.jobs) <> 0
),
-- Each of them may have been the one that was let go when a job with its key ended: the next
-- one of the key is let go in its place. One too many is blocked again by its claim.
freed AS (
    SELECT g.queue, g.key, count(*) AS jobs FROM gone AS g
    WHERE g.key IS NOT NULL AND NOT g.blocked GROUP BY g.queue, g.key
),
chosen AS (
    SELECT b.id FROM freed AS f
    CROSS JOIN LATERAL (
        SELECT w.id FROM mailrace.jobs AS w
        WHERE w.blocked AND w.queue = f.queue AND w.key = f.key
            AND w.id NOT IN (SELECT p.id FROM picked AS p)
        ORDER BY w.run_at, w.id LIMIT f.jobs
        FOR UPDATE SKIP LOCKED
    ) AS b
),
unblocked AS (
    UPDATE mailrace.jobs AS j SET blocked = false
    WHERE j.id = ANY (ARRAY(SELECT u.id FROM chosen AS u))
)
SELECT (SELECT count(*) FROM picked), (SELECT count(*) FROM matched)
