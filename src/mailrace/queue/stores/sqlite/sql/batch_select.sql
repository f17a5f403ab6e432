-- lock: none; index: batches.name
SELECT id, name, kind, spec, sealed_ms, completed_ms FROM batches WHERE name = :name
