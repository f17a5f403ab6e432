-- lock: none (inside the write of enqueue); index: batches.id
-- Those of the batches named that nothing may be added to: sealed, or not there.
SELECT w.value, b.id IS NOT NULL
FROM json_each(:batches) AS w LEFT JOIN batches AS b ON b.id = w.value
WHERE b.id IS NULL OR b.sealed_ms IS NOT NULL
