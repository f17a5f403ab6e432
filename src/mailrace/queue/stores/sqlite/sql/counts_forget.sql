-- lock: write; index: counts(queue, batch_id, state)
DELETE FROM counts WHERE jobs = 0 AND batch_id = 0
