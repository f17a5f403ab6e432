-- lock: the process's row; index: processes_pkey; guard: still known
UPDATE mailrace.processes SET
    expires_at = date_trunc('milliseconds', coalesce(%(now)s::timestamptz, now()))
        + mailrace.milliseconds(%(lease_ms)s::bigint),
    heartbeat_at = coalesce(%(now)s::timestamptz, now()),
    vitals = %(vitals)s::json
WHERE id = %(process_id)s::bigint
