-- lock: none; index: jobs_ready
-- A skip scan: each step seeks the next priority of the same tenant, or else the next tenant, and
-- no flow is read beyond its first job.
WITH RECURSIVE flows (tenant, priority, run_at_ms) AS (
    SELECT * FROM (
        SELECT tenant, priority, run_at_ms FROM jobs
        WHERE queue = :queue AND tenant >= :first
            AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
        ORDER BY tenant, priority DESC, run_at_ms LIMIT 1
    )
    UNION ALL
    SELECT j.tenant, j.priority, j.run_at_ms
    FROM flows AS f CROSS JOIN jobs AS j ON j.id = coalesce(
        (
            SELECT id FROM jobs
            WHERE queue = :queue AND tenant = f.tenant AND priority < f.priority
                AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
            ORDER BY priority DESC, run_at_ms LIMIT 1
        ),
        (
            SELECT id FROM jobs
            WHERE queue = :queue AND tenant > f.tenant
                AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
            ORDER BY tenant, priority DESC, run_at_ms LIMIT 1
        )
    )
    LIMIT :most
)
SELECT tenant, priority, run_at_ms FROM flows
