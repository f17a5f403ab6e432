-- lock: the batch's row, which waits for those who add to it; index: batches_pkey; guard: not sealed
UPDATE mailrace.batches SET sealed_at = coalesce(%(now)s::timestamptz, now())
WHERE id = %(batch_id)s::bigint AND sealed_at IS NULL
