-- lock: rows (skips locked ones); index: jobs_pkey, jobs_batch; guard: waiting
-- Whether one is blocked is found out anew when its time has come.
WITH picked AS MATERIALIZED (
    SELECT j.id, j.queue, j.batch_id, j.key, j.state, j.blocked FROM mailrace.jobs AS j
    LEFT JOIN LATERAL (
        SELECT l.category, l.reason, l.detail FROM mailrace.attempts AS l
        WHERE l.job_id = j.id ORDER BY l.lease DESC LIMIT 1
    ) AS a ON true
    WHERE %(live)s::boolean
        AND j.state IN ('scheduled', 'available', 'retryable')
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
    FOR UPDATE OF j SKIP LOCKED
),
changed AS (
    UPDATE mailrace.jobs AS j SET
        state = 'scheduled', blocked = false,
        run_at = coalesce(%(now)s::timestamptz, now()) + mailrace.milliseconds(%(delay_ms)s)
    WHERE j.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING j.id
),
tallied AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT g.queue, coalesce(g.batch_id, 0), s.state, sum(s.jobs), coalesce(%(now)s::timestamptz, now())
    FROM picked AS g
    CROSS JOIN LATERAL (VALUES (g.state, -1), ('scheduled'::mailrace.job_state, 1)) AS s (state, jobs)
    GROUP BY 1, 2, 3 HAVING sum(s.jobs) <> 0
),
-- Each of them may have been the one that was let go when a job with its key ended: the next
-- one of the key is let go in its place. One too many is blocked again by its claim.
freed AS (
    SELECT g.queue, g.key, count(*) AS jobs FROM picked AS g
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
SELECT count(*) FROM changed
