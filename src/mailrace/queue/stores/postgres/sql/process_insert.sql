-- lock: none but its own new row; index: none; guard: none
INSERT INTO mailrace.processes (
    journal, expires_at, started_at, heartbeat_at, pid, concurrency, node, host, version,
    supervisor, queues
)
SELECT
    %(journal)s::text,
    date_trunc('milliseconds', present.at) + mailrace.milliseconds(%(lease_ms)s::bigint),
    present.at, present.at, %(pid)s::integer, %(concurrency)s::integer, %(node)s::text,
    %(host)s::text, %(version)s::text, %(supervisor)s::text, %(queues)s::text[]
FROM (SELECT coalesce(%(now)s::timestamptz, now())) AS present (at)
RETURNING id
