-- lock: none; index: none: schedules and batches are few
SELECT 'schedule' AS source, s.name, s.job FROM mailrace.schedules AS s
UNION ALL
SELECT 'batch', b.name, b.completion FROM mailrace.batches AS b
WHERE b.completion IS NOT NULL AND b.completed_at IS NULL
