-- lock: write; index: jobs_blocked
UPDATE jobs SET blocked = 0 WHERE queue = :queue AND blocked
