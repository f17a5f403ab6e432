-- lock: none; index: jobs_ready, jobs_blocked; guard: two thousand flows, and ten thousand jobs of a queue
-- Flows by a skip scan, and of each only jobs that are due: those for later are not looked at.
WITH RECURSIVE walk AS (
    (
        SELECT j.queue, j.tenant, j.priority, j.run_at FROM mailrace.jobs AS j
        WHERE j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
        ORDER BY j.queue, j.tenant, j.priority, j.run_at, j.id LIMIT 1
    )
    UNION ALL
    SELECT n.queue, n.tenant, n.priority, n.run_at FROM walk AS w
    CROSS JOIN LATERAL (
        SELECT j.queue, j.tenant, j.priority, j.run_at FROM mailrace.jobs AS j
        WHERE j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
            AND (j.queue, j.tenant, j.priority) > (w.queue, w.tenant, w.priority)
        ORDER BY j.queue, j.tenant, j.priority, j.run_at, j.id LIMIT 1
    ) AS n
),
flows AS MATERIALIZED (
    SELECT w.queue, w.tenant, w.priority, w.run_at FROM walk AS w LIMIT 2000
),
sums AS (
    SELECT l.queue, l.state, sum(l.jobs) AS jobs
    FROM (
        SELECT c.queue, c.state, c.jobs FROM mailrace.counts AS c
        UNION ALL
        SELECT t.queue, t.state, t.jobs FROM mailrace.tallies AS t
    ) AS l
    GROUP BY l.queue, l.state
),
queues AS (
    SELECT
        s.queue, json_object_agg(s.state, s.jobs) AS counts,
        sum(s.jobs) FILTER (WHERE s.state IN ('available', 'retryable')) AS waiting
    FROM sums AS s GROUP BY s.queue
)
SELECT
    q.queue, q.counts,
    CASE
        WHEN free.due + held.due < 10000 THEN free.due + held.due
        ELSE greatest(free.due + held.due, q.waiting)
    END::bigint AS due,
    greatest(0, mailrace.unix_ms(p.present) - mailrace.unix_ms(least(first.run_at, held.run_at)))
FROM queues AS q
CROSS JOIN (SELECT coalesce(%(now)s::timestamptz, now()) AS present) AS p
CROSS JOIN LATERAL (
    SELECT min(f.run_at) AS run_at FROM flows AS f WHERE f.queue = q.queue
) AS first
CROSS JOIN LATERAL (
    SELECT count(*) AS due FROM (
        SELECT FROM flows AS f
        CROSS JOIN LATERAL (
            SELECT FROM mailrace.jobs AS j
            WHERE j.queue = f.queue AND j.tenant = f.tenant AND j.priority = f.priority
                AND j.run_at <= p.present
                AND j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
            LIMIT 10000
        ) AS j
        WHERE f.queue = q.queue AND f.run_at <= p.present
        LIMIT 10000
    ) AS j
) AS free
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE b.run_at <= p.present) AS due, min(b.run_at) AS run_at FROM (
        SELECT j.run_at FROM mailrace.jobs AS j WHERE j.blocked AND j.queue = q.queue LIMIT 10000
    ) AS b
) AS held
ORDER BY q.queue
