-- lock: none; index: jobs_retryable
SELECT min(run_at_ms) FROM jobs WHERE batch_id = :batch_id AND state = 'retryable'
