-- lock: none; index: jobs_pkey, jobs_completed_id, jobs_ended_pkey; guard: each part is cut before they meet
-- One snapshot: a job that moves from one table to another is in one of them. Payloads are measured
-- here, so that a page of large ones is a short one.
SELECT p.id, p.state, p.lease, p.kind, p.queue, p.batch_id, p.payload
FROM (
    SELECT u.*, sum(octet_length(u.payload::text)) OVER (
        ORDER BY u.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS bytes_before
    FROM (
        (
            SELECT j.id, j.state AS state, j.lease, j.kind, j.queue, j.batch_id, j.payload
            FROM mailrace.jobs AS j
            WHERE j.id > %(after_id)s ORDER BY j.id LIMIT %(limit)s
        )
        UNION ALL
        (
            SELECT
                c.id, 'completed'::mailrace.job_state AS state, c.lease, c.kind, c.queue,
                c.batch_id, c.payload
            FROM mailrace.jobs_completed AS c
            WHERE c.id > %(after_id)s ORDER BY c.id LIMIT %(limit)s
        )
        UNION ALL
        (
            SELECT e.id, e.state AS state, e.lease, e.kind, e.queue, e.batch_id, e.payload
            FROM mailrace.jobs_ended AS e
            WHERE e.id > %(after_id)s ORDER BY e.id LIMIT %(limit)s
        )
        ORDER BY id LIMIT %(limit)s
    ) AS u
) AS p
WHERE coalesce(p.bytes_before, 0) < %(most_bytes)s
ORDER BY p.id
