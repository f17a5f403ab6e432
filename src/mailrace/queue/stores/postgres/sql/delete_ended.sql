-- lock: rows (skips locked ones); index: jobs_ended_pkey, attempts_pkey, keys_job; guard: final
WITH picked AS MATERIALIZED (
    SELECT e.id FROM mailrace.jobs_ended AS e
    WHERE %(ended)s::boolean
        -- fragment: matching
    ORDER BY e.id LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_ended AS e WHERE e.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING e.queue, e.batch_id, e.state
),
keys_gone AS (
    DELETE FROM mailrace.keys AS k WHERE k.job_id = ANY (ARRAY(SELECT p.id FROM picked AS p))
),
-- fragment: forget_gone
SELECT count(*) FROM gone
