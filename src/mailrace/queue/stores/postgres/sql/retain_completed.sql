-- lock: rows (skips locked ones); guard: ended so long ago, and in the default partition, which has few
WITH picked AS MATERIALIZED (
    SELECT c.id FROM mailrace.jobs_completed_rest AS c
    WHERE c.ended_at < coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_s)s)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_completed_rest AS c WHERE c.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING c.queue
),
attempts_gone AS (
    DELETE FROM mailrace.attempts AS a WHERE a.job_id = ANY (ARRAY(SELECT p.id FROM picked AS p))
),
tallied AS (
    -- The counts of a batch tell of all its jobs for ever: it is the queue's that go down.
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT g.queue, 0, 'completed', -count(*), coalesce(%(now)s::timestamptz, now())
    FROM gone AS g GROUP BY g.queue
)
SELECT count(*) FROM gone
