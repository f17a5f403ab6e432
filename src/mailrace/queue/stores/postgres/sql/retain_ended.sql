-- lock: rows (skips locked ones); index: jobs_ended_state, jobs_ended_pkey, attempts_pkey; guard: ended so long ago
-- The counts of a batch tell of all its jobs for ever: it is the queue's that go down.
WITH picked AS MATERIALIZED (
    SELECT e.id FROM mailrace.jobs_ended AS e
    WHERE e.state = %(state)s::mailrace.job_state
        AND e.ended_at < coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_s)s)
    ORDER BY e.ended_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_ended AS e WHERE e.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING e.queue, NULL::bigint AS batch_id, e.state
),
-- fragment: forget_gone
SELECT count(*) FROM gone
