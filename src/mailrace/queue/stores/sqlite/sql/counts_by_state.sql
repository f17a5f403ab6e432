-- lock: none; index: counts(queue, batch_id, state)
SELECT state, sum(jobs), coalesce(sum(jobs) FILTER (WHERE queue = :queue), 0)
FROM counts GROUP BY state
