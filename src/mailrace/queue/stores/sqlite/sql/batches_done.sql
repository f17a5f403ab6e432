-- lock: none (inside the write of complete_batches); index: batches_open, counts_batch
SELECT id, name, completion FROM batches AS b
WHERE sealed_ms IS NOT NULL AND completed_ms IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM counts AS n
        WHERE n.batch_id = b.id AND n.batch_id <> 0 AND n.jobs > 0
            AND n.state IN ('scheduled', 'available', 'running', 'retryable')
    )
LIMIT 1000
