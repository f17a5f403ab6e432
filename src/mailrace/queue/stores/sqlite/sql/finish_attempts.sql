-- lock: write; index: attempts(job_id, lease); guard: finishing_fence
INSERT INTO attempts (job_id, lease, attempt, at_ms, step, reason, detail)
SELECT f.id, f.lease, j.attempt, f.at_ms, f.step, f.reason, f.detail
FROM temp.finishing AS f CROSS JOIN jobs AS j ON j.id = f.id
WHERE f.step <> 'release'
