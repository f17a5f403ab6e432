-- lock: none; index: counts_batch
SELECT state, sum(jobs) FROM counts WHERE batch_id = :batch_id AND batch_id <> 0 GROUP BY state
