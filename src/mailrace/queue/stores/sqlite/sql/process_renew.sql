-- lock: write; index: processes.id; guard: a process that was rescued is no longer there
UPDATE processes SET expires_ms = :expires_ms, heartbeat_ms = :now_ms, vitals = :vitals
WHERE id = :process_id
