-- lock: rows (skips locked ones), in the order of their keys; index: counts_pkey, pace_pkey; guard: a tally is taken once
WITH taken AS MATERIALIZED (
    DELETE FROM mailrace.tallies AS t
    WHERE t.ctid = ANY (ARRAY(
        SELECT l.ctid FROM mailrace.tallies AS l LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING t.queue, t.batch_id, t.state, t.jobs, t.at
),
counted AS (
    INSERT INTO mailrace.counts AS c (queue, batch_id, state, jobs, first_at, last_at)
    SELECT
        t.queue, t.batch_id, t.state, sum(t.jobs),
        min(t.at) FILTER (WHERE t.jobs > 0), max(t.at) FILTER (WHERE t.jobs > 0)
    FROM taken AS t
    GROUP BY t.queue, t.batch_id, t.state
    ORDER BY t.queue, t.batch_id, t.state
    ON CONFLICT (queue, batch_id, state) DO UPDATE SET
        jobs = c.jobs + excluded.jobs,
        first_at = least(c.first_at, excluded.first_at),
        last_at = greatest(c.last_at, excluded.last_at)
),
paced AS (
    INSERT INTO mailrace.pace AS p (queue, batch_id, slice, state, jobs)
    SELECT
        t.queue, t.batch_id, to_timestamp(floor(date_part('epoch', t.at) / 10) * 10) AS slice,
        t.state, sum(t.jobs)
    FROM taken AS t WHERE t.jobs > 0
    GROUP BY t.queue, t.batch_id, slice, t.state
    ORDER BY slice, t.queue, t.batch_id, t.state
    ON CONFLICT (slice, queue, batch_id, state) DO UPDATE SET jobs = p.jobs + excluded.jobs
)
SELECT count(*) FROM taken
