-- lock: none; index: batches_pkey
SELECT id FROM mailrace.batches WHERE id = %(batch_id)s::bigint
