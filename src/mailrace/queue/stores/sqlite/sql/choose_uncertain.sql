-- lock: none (inside the write of resend); index: jobs_unwell; guard: state
-- The states of the index stand here in full, or SQLite does not see that it may use it.
INSERT INTO temp.chosen
SELECT id FROM jobs
WHERE batch_id = :batch_id AND batch_id IS NOT NULL
    AND state IN ('failed', 'uncertain', 'retryable') AND state = 'uncertain'
