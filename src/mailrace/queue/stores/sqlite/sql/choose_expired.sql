-- lock: none (inside the write of expire); index: jobs_expiring; guard: state
INSERT INTO temp.chosen
SELECT id FROM jobs
WHERE expires_ms <= :now_ms AND expires_ms IS NOT NULL
    AND state IN ('scheduled', 'available', 'retryable')
ORDER BY expires_ms LIMIT :limit
