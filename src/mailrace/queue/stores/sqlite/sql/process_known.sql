-- lock: none (inside the writes of claim and retire); index: processes.id
SELECT 1 FROM processes WHERE id = :process_id
