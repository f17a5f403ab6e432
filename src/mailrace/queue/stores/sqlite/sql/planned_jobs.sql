-- lock: none; index: schedules.name, batches.id
SELECT 'schedule', name, job FROM schedules
UNION ALL
SELECT 'batch', name, completion FROM batches
WHERE completion IS NOT NULL AND completed_ms IS NULL
