-- lock: write; index: pace(batch_id, slice), batches.id
-- The rate of a batch is that of the minute before its last attempt.
DELETE FROM pace
WHERE slice < (SELECT last_ms FROM batches WHERE id = pace.batch_id) / :slice_ms - :slices
