-- lock: rows (skips locked ones); index: jobs_pkey, jobs_batch; guard: waiting, or running and not asked yet
-- Matched without a lock and picked with one: where the second are fewer, somebody is at the rest.
WITH target (state) AS (VALUES ('cancelled'::mailrace.job_state)),
matched AS MATERIALIZED (
    SELECT j.id
    FROM
        -- fragment: live_jobs
    WHERE %(live)s::boolean
        AND (j.state IN ('scheduled', 'available', 'retryable') OR j.state = 'running' AND NOT j.cancel_requested)
        -- fragment: matching
    ORDER BY j.id LIMIT %(limit)s
),
picked AS MATERIALIZED (
    SELECT j.id, j.state = 'running' AS running FROM mailrace.jobs AS j
    WHERE j.id = ANY (ARRAY(SELECT m.id FROM matched AS m))
        AND (j.state IN ('scheduled', 'available', 'retryable') OR j.state = 'running' AND NOT j.cancel_requested)
    FOR UPDATE OF j SKIP LOCKED
),
asked AS (
    UPDATE mailrace.jobs AS j SET cancel_requested = true
    WHERE j.id = ANY (ARRAY(SELECT p.id FROM picked AS p WHERE p.running))
),
leaving AS (
    DELETE FROM mailrace.jobs AS j
    WHERE j.id = ANY (ARRAY(SELECT p.id FROM picked AS p WHERE NOT p.running))
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
SELECT (SELECT count(*) FROM picked), (SELECT count(*) FROM matched)
