-- lock: write; index: jobs.id; guard: candidates, in the same transaction
UPDATE jobs SET blocked = 1 WHERE id IN (SELECT value FROM json_each(:ids))
