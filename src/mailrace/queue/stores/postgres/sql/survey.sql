-- lock: none; index: jobs_ready, one descent a flow
WITH RECURSIVE wanted AS (
    -- Priorities lie between -9 and 9: from the very first, or behind all of a tenant's.
    SELECT
        w.queue, coalesce(w.after, '') AS after,
        (CASE WHEN w.after IS NULL THEN -100 ELSE 100 END)::smallint AS beyond
    FROM unnest(%(queues)s::text[], %(after)s::text[]) AS w (queue, after)
),
flows AS (
    SELECT w.queue, f.tenant, f.priority, f.run_at, 1 AS number
    FROM wanted AS w
    CROSS JOIN LATERAL (
        SELECT j.tenant, j.priority, j.run_at FROM mailrace.jobs AS j
        WHERE j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
            AND j.queue = w.queue AND (j.tenant, j.priority) > (w.after, w.beyond)
        ORDER BY j.tenant, j.priority, j.run_at, j.id LIMIT 1
    ) AS f
    UNION ALL
    SELECT p.queue, f.tenant, f.priority, f.run_at, p.number + 1
    FROM flows AS p
    CROSS JOIN LATERAL (
        SELECT j.tenant, j.priority, j.run_at FROM mailrace.jobs AS j
        WHERE j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
            AND j.queue = p.queue AND (j.tenant, j.priority) > (p.tenant, p.priority)
        ORDER BY j.tenant, j.priority, j.run_at, j.id LIMIT 1
    ) AS f
    WHERE p.number < %(most)s::integer + 1
)
SELECT json_agg(
    json_build_array(
        queue, tenant, priority,
        mailrace.unix_ms(coalesce(%(now)s::timestamptz, now())) - mailrace.unix_ms(run_at)
    )
    ORDER BY queue, number
)::text
FROM flows
