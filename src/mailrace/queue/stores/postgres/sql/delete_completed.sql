-- lock: rows (skips locked ones); index: jobs_completed_id, attempts_pkey, keys_job; guard: final
WITH picked AS MATERIALIZED (
    SELECT c.id
    FROM
        -- fragment: completed_jobs
    WHERE %(completed)s::boolean
        -- fragment: matching
    ORDER BY c.id LIMIT %(limit)s
    FOR UPDATE OF c SKIP LOCKED
),
gone AS (
    DELETE FROM mailrace.jobs_completed AS c WHERE c.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING c.queue, c.batch_id, 'completed'::mailrace.job_state AS state
),
keys_gone AS (
    DELETE FROM mailrace.keys AS k WHERE k.job_id = ANY (ARRAY(SELECT p.id FROM picked AS p))
),
-- fragment: forget_gone
SELECT count(*) FROM gone
