-- lock: none; index: counts(queue, batch_id, state)
SELECT queue, state, sum(jobs) FROM counts GROUP BY 1, 2
