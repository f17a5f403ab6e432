-- lock: none (inside the write of tidy); index: jobs_blocked
-- A skip scan: one seek for each key, however many jobs of it were set aside.
WITH RECURSIVE aside (queue, key) AS (
    SELECT * FROM (
        SELECT queue, key FROM jobs WHERE queue >= '' AND blocked ORDER BY queue, key LIMIT 1
    )
    UNION ALL
    SELECT j.queue, j.key
    FROM aside AS a CROSS JOIN jobs AS j ON j.id = coalesce(
        (SELECT id FROM jobs WHERE queue = a.queue AND key > a.key AND blocked ORDER BY key LIMIT 1),
        (SELECT id FROM jobs WHERE queue > a.queue AND blocked ORDER BY queue, key LIMIT 1)
    )
    LIMIT :most
)
SELECT queue, key FROM aside
