-- lock: write; index: jobs.id; guard: only for jobs that job_insert added
INSERT INTO payloads (job_id, body)
SELECT :first_id + j.key, json_extract(j.value, '$[1]')
FROM json_each(:jobs) AS j
WHERE EXISTS (SELECT 1 FROM jobs WHERE id = :first_id + j.key)
