-- lock: none; index: batches.id
SELECT id, name, kind, spec, sealed_ms, completed_ms FROM batches ORDER BY id DESC
