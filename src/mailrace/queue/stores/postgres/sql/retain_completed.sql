-- lock: rows (skips locked ones); guard: ended so long ago, and in the default partition, which has few
-- The counts of a batch tell of all its jobs for ever: it is the queue's that go down.
WITH picked AS MATERIALIZED (
    SELECT c.id FROM mailrace.jobs_completed_rest AS c
    WHERE c.ended_at < coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_s)s)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_completed_rest AS c WHERE c.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING c.queue, NULL::bigint AS batch_id, 'completed'::mailrace.job_state AS state
),
-- fragment: forget_gone
SELECT count(*) FROM gone
