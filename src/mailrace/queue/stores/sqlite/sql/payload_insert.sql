-- lock: write; index: jobs.id; guard: only for jobs that job_insert added
-- json_extract takes a text out of its quotes and makes numbers of true and false.
INSERT INTO payloads (job_id, body)
SELECT
    :first_id + j.key,
    CASE json_type(j.value, '$[1]')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE json_quote(json_extract(j.value, '$[1]'))
    END
FROM json_each(:jobs) AS j
WHERE EXISTS (SELECT 1 FROM jobs WHERE id = :first_id + j.key)
