-- lock: none; index: batches.id
SELECT name, kind, created_ms, first_ms, last_ms, sealed_ms, completed_ms
FROM batches WHERE id = :batch_id
