-- lock: write; index: jobs.id; guard: the choice, in the same transaction
UPDATE jobs SET state = :state, blocked = 0, ended_ms = :now_ms
WHERE id IN (SELECT id FROM temp.chosen)
