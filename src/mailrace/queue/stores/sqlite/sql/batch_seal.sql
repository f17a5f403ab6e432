-- lock: write; index: batches.id; guard: one that is sealed keeps its time
UPDATE batches SET sealed_ms = coalesce(sealed_ms, :now_ms) WHERE id = :batch_id
