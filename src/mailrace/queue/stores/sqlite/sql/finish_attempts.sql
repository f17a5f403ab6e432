-- lock: write; index: attempts(job_id, lease); guard: finishing_fill
INSERT INTO attempts (job_id, lease, attempt, at_ms, step, category, reason, detail)
SELECT id, lease, attempt, at_ms, step, category, reason, detail
FROM temp.finishing
WHERE step NOT IN ('complete', 'release', 'snooze')
