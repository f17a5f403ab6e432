-- lock: none; index: attempts(job_id, lease)
SELECT lease, attempt, at_ms, step, category, reason, detail
FROM attempts WHERE job_id = :job_id ORDER BY lease
