-- lock: write; index: jobs.id; guard: the choice, in the same transaction
UPDATE jobs SET state = 'scheduled', blocked = 0, run_at_ms = :run_at_ms
WHERE id IN (SELECT id FROM temp.chosen)
