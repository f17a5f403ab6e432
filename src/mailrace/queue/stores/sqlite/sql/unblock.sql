-- lock: write; index: jobs_blocked
UPDATE jobs SET blocked = 0 WHERE id IN (
    SELECT id FROM jobs WHERE queue = :queue AND key = :key AND blocked ORDER BY run_at_ms LIMIT :jobs
)
