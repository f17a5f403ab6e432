-- lock: none; index: jobs_unwell, attempts(job_id, lease)
SELECT j.state, a.reason, min(a.detail), count(*)
FROM jobs AS j JOIN attempts AS a ON a.job_id = j.id AND a.lease = j.lease
WHERE j.batch_id = :batch_id AND j.state IN ('failed', 'uncertain', 'retryable')
GROUP BY 1, 2 ORDER BY 4 DESC, 1, 2 LIMIT 20
