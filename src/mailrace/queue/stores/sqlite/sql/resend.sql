-- lock: write; index: jobs_unwell; guard: state
-- The states of the index stand here in full, or SQLite does not see that it may use it.
UPDATE jobs SET state = 'available', attempt = 0 WHERE batch_id = :batch_id
    AND state IN ('failed', 'uncertain', 'retryable') AND state = 'uncertain'
