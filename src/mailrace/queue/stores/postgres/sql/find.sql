-- lock: none; index: jobs_pkey, jobs_batch, jobs_completed_id, jobs_completed_queue, jobs_ended_pkey, jobs_ended_state; guard: each part is cut before they meet
-- A part that cannot have any is planned away.
(
    SELECT
        -- fragment: row
    FROM
        -- fragment: live_jobs
    WHERE %(live)s::boolean
        -- fragment: matching
        AND (%(before_id)s::bigint IS NULL OR id < %(before_id)s)
    ORDER BY id DESC LIMIT %(limit)s
)
UNION ALL
(
    SELECT
        -- fragment: row
    FROM
        -- fragment: completed_jobs
    WHERE %(completed)s::boolean
        -- fragment: matching
        AND (%(before_id)s::bigint IS NULL OR id < %(before_id)s)
    ORDER BY id DESC LIMIT %(limit)s
)
UNION ALL
(
    SELECT
        -- fragment: row
    FROM mailrace.jobs_ended AS e
    WHERE %(ended)s::boolean
        -- fragment: matching
        AND (%(before_id)s::bigint IS NULL OR id < %(before_id)s)
    ORDER BY id DESC LIMIT %(limit)s
)
ORDER BY id DESC LIMIT %(limit)s
