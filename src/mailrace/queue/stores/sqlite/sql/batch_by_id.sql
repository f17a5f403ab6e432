-- lock: none; index: batches.id
SELECT id, name, kind, created_ms, first_ms, last_ms FROM batches WHERE id = :batch_id
