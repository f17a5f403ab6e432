-- lock: none; index: counts(batch_id, state)
SELECT state, jobs FROM counts WHERE batch_id = :batch_id
