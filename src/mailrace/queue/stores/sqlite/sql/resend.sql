-- lock: write; index: jobs_unwell; guard: state
UPDATE jobs SET state = 'available' WHERE batch_id = :batch_id AND state = 'uncertain'
