-- lock: none; index: batches_name_key, or none for all
SELECT
    id, name, kind, spec, sealed_at IS NOT NULL AS sealed, completed_at IS NOT NULL AS completed
FROM mailrace.batches
WHERE %(name)s::text IS NULL OR name = %(name)s::text
ORDER BY id DESC
