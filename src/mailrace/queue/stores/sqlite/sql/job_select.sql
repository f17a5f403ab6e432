-- lock: none; index: jobs.id
SELECT payload, result FROM jobs WHERE id = :job_id
