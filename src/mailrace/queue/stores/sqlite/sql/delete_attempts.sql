-- lock: write; index: attempts(job_id, lease)
DELETE FROM attempts WHERE job_id IN (SELECT id FROM temp.chosen)
