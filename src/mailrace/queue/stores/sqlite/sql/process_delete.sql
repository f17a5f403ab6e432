-- lock: write; index: processes.id; guard: expires_ms: a process that renewed meanwhile is alive
DELETE FROM processes WHERE id = :process_id AND expires_ms = :expires_ms
