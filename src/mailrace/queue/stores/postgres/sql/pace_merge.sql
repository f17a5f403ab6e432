-- lock: rows (skips locked ones), in the order of their keys; index: pace_pkey; guard: older than an hour, and no whole minute
-- Of the last three hours only: what nobody was there to merge stays as it is.
WITH picked AS MATERIALIZED (
    SELECT p.slice, p.queue, p.batch_id, p.state FROM mailrace.pace AS p
    WHERE p.slice >= coalesce(%(now)s::timestamptz, now()) - interval '3 hours'
        AND p.slice < date_trunc('minute', coalesce(%(now)s::timestamptz, now()) - interval '1 hour')
        AND date_trunc('minute', p.slice) <> p.slice
    ORDER BY p.slice LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
taken AS (
    DELETE FROM mailrace.pace AS p USING picked AS f
    WHERE p.slice = f.slice AND p.queue = f.queue AND p.batch_id = f.batch_id AND p.state = f.state
    RETURNING p.queue, p.batch_id, date_trunc('minute', p.slice) AS slice, p.state, p.jobs
)
INSERT INTO mailrace.pace AS p (queue, batch_id, slice, state, jobs)
SELECT t.queue, t.batch_id, t.slice, t.state, sum(t.jobs) FROM taken AS t
GROUP BY t.queue, t.batch_id, t.slice, t.state
ORDER BY t.slice, t.queue, t.batch_id, t.state
ON CONFLICT (slice, queue, batch_id, state) DO UPDATE SET jobs = p.jobs + excluded.jobs
