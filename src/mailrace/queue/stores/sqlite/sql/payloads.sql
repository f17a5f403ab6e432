-- lock: none; index: jobs.id
SELECT id, state, lease, kind, queue, batch_id, payload FROM jobs
WHERE id > :after_id ORDER BY id LIMIT :limit
