-- lock: none; index: jobs_unwell
SELECT state, reason, min(detail), count(*)
FROM jobs
WHERE batch_id = :batch_id AND batch_id IS NOT NULL AND state IN ('failed', 'uncertain', 'retryable')
GROUP BY 1, 2 ORDER BY 4 DESC, 1, 2 LIMIT 20
