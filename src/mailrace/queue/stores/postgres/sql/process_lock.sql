-- lock: the process's row, which waits for its claims under way; index: processes_pkey
SELECT id FROM mailrace.processes WHERE id = %(process_id)s::bigint FOR UPDATE
