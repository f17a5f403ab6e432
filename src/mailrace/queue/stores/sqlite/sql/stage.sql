-- lock: write; index: jobs_retryable; guard: state
UPDATE jobs SET state = 'available', run_at_ms = NULL
WHERE id IN (
    SELECT id FROM jobs
    WHERE batch_id = :batch_id AND state = 'retryable' AND run_at_ms <= :now_ms
    ORDER BY run_at_ms LIMIT :limit
)
