-- lock: none; index: batches.id
SELECT id, name, kind, spec FROM batches ORDER BY id DESC
