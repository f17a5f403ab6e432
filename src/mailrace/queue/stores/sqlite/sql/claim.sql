-- lock: write; index: jobs_available; guard: state
UPDATE jobs SET state = 'running', attempt = attempt + 1, lease = :lease, process_id = :process_id
WHERE id IN (
    SELECT id FROM jobs WHERE batch_id = :batch_id AND state = 'available' ORDER BY id LIMIT :limit
)
