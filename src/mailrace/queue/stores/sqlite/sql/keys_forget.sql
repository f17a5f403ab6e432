-- lock: write; index: keys_created
DELETE FROM keys WHERE digest IN (
    SELECT digest FROM keys WHERE created_ms < :before_ms AND batch_id IS NULL LIMIT :limit
)
