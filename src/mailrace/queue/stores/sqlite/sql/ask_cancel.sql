-- lock: write; index: jobs.id; guard: the choice, in the same transaction
UPDATE jobs SET cancel_requested = 1 WHERE id IN (SELECT id FROM temp.chosen)
