-- lock: none (inside the write of claim); index: jobs.id
-- One row for all jobs, so that the interpreter's lock is let go once and not for every row. The
-- payload is put in as it is: reading it as JSON and writing it again would only cost time.
SELECT '[' || group_concat(
    rtrim(json_array(
        j.id, j.lease, j.attempt, j.once, j.kind, j.queue, j.tenant, j.priority, j.deaths, j.key,
        j.batch_id, j.attempts, j.created_ms, j.expires_ms
    ), ']') || ',' || j.payload || ']'
) || ']'
FROM temp.claiming AS c CROSS JOIN jobs AS j ON j.id = c.id
