-- lock: rows (skips locked ones); index: jobs_expiring; guard: waiting, and its time is over
WITH target (state) AS (VALUES ('expired'::mailrace.job_state)),
picked AS MATERIALIZED (
    SELECT j.id FROM mailrace.jobs AS j
    WHERE j.expires_at <= coalesce(%(now)s::timestamptz, now())
        AND j.state IN ('scheduled', 'available', 'retryable')
    ORDER BY j.expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
leaving AS (
    DELETE FROM mailrace.jobs AS j WHERE j.id = ANY (ARRAY(SELECT p.id FROM picked AS p))
    RETURNING j.*
),
moved AS (
    -- fragment: move_to_ended
),
tallied AS (
    -- fragment: tally_moves
),
unblocked AS (
    -- fragment: let_in_next
)
SELECT count(*) FROM leaving
