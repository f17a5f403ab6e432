-- lock: rows (skips locked ones); index: jobs_pkey, jobs_batch; guard: waiting
-- Whether one is blocked is found out anew when its time has come.
WITH target (state) AS (VALUES ('scheduled'::mailrace.job_state)),
leaving AS MATERIALIZED (
    SELECT j.id, j.queue, j.batch_id, j.key, j.state, j.blocked
    FROM
        -- fragment: live_jobs
    WHERE %(live)s::boolean
        AND j.state IN ('scheduled', 'available', 'retryable')
        -- fragment: matching
    ORDER BY j.id LIMIT %(limit)s
    FOR UPDATE OF j SKIP LOCKED
),
changed AS (
    UPDATE mailrace.jobs AS j SET
        state = 'scheduled', blocked = false,
        run_at = coalesce(%(now)s::timestamptz, now()) + mailrace.milliseconds(%(delay_ms)s)
    WHERE j.id = ANY (ARRAY(SELECT l.id FROM leaving AS l))
    RETURNING j.id
),
tallied AS (
    -- fragment: tally_moves
),
unblocked AS (
    -- fragment: let_in_next
)
SELECT count(*) FROM changed
