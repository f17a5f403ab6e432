-- lock: none; index: batches.name
SELECT id, name, kind, spec, created_ms, first_ms, last_ms FROM batches WHERE name = :name
