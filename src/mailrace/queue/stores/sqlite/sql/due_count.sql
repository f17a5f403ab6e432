-- lock: none; index: jobs_ready
SELECT count(*) FROM (
    SELECT 1 FROM jobs
    WHERE queue = :queue AND tenant = :tenant AND priority = :priority
        AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
        AND run_at_ms <= :now_ms
    LIMIT :most
)
