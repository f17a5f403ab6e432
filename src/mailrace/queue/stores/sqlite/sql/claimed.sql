-- lock: none (inside the write of claim); index: jobs_running
-- One row for all jobs, so that the interpreter's lock is let go once and not for every row.
SELECT json_group_array(json_array(id, lease, attempt, json(body)))
FROM (
    SELECT j.id, j.lease, j.attempt, p.body
    FROM jobs AS j JOIN payloads AS p ON p.job_id = j.id
    WHERE j.process_id = :process_id AND j.lease = :lease AND j.state = 'running'
    ORDER BY j.id
)
