-- lock: the process's row, which waits for its claims under way; index: processes_pkey; guard: not renewed since
DELETE FROM mailrace.processes
WHERE id = %(process_id)s::bigint AND mailrace.unix_ms(expires_at) = %(expires_ms)s::bigint
