-- lock: write; index: batches.id; guard: once
UPDATE batches SET completed_ms = :now_ms WHERE id = :batch_id AND completed_ms IS NULL
