-- lock: none (inside the write of claim); index: processes.id
SELECT 1 FROM processes WHERE id = :process_id
