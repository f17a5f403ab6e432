-- lock: write; index: batches.id
UPDATE batches SET
    first_ms = min(coalesce(first_ms, :first_ms), :first_ms),
    last_ms = max(coalesce(last_ms, :last_ms), :last_ms)
WHERE id = :batch_id
