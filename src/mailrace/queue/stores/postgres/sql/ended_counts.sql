-- lock: none; index: jobs_ended_state, jobs_ended_batch; guard: the thousand largest groups
SELECT
    e.state, e.queue, e.kind, e.category, e.reason, count(*) AS jobs,
    mailrace.unix_ms(min(e.ended_at)), mailrace.unix_ms(max(e.ended_at))
FROM mailrace.jobs_ended AS e
WHERE %(ended)s::boolean
    -- fragment: matching
GROUP BY 1, 2, 3, 4, 5
ORDER BY jobs DESC, 1, 2, 3, 4, 5
LIMIT 1000
