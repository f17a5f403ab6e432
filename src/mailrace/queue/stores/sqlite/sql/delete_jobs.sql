-- lock: write; index: jobs.id; guard: the choice, in the same transaction
DELETE FROM jobs WHERE id IN (SELECT id FROM temp.chosen)
