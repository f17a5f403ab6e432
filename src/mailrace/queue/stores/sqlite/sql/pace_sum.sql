-- lock: none; index: pace(batch_id, slice)
SELECT coalesce(sum(attempts), 0), min(slice) FROM pace WHERE batch_id = :batch_id AND slice > :after
