-- lock: none; index: jobs_later
SELECT min(run_at_ms) FROM jobs
WHERE batch_id = :batch_id AND run_at_ms > :now_ms
    AND batch_id IS NOT NULL AND state IN ('scheduled', 'retryable')
