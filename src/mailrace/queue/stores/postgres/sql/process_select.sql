-- lock: none; index: none, they are few
SELECT json_agg(
    json_build_object(
        'id', p.id, 'journal', p.journal, 'node', p.node, 'host', p.host, 'pid', p.pid,
        'version', p.version, 'supervisor', p.supervisor, 'queues', p.queues,
        'concurrency', p.concurrency, 'vitals', p.vitals,
        'expires_ms', mailrace.unix_ms(p.expires_at),
        'started_ms', mailrace.unix_ms(p.started_at),
        'heartbeat_ms', mailrace.unix_ms(p.heartbeat_at),
        'expired', p.expires_at <= coalesce(%(now)s::timestamptz, now()),
        'outlived', p.heartbeat_at < pg_postmaster_start_time()
    )
    ORDER BY p.id
)::text
FROM mailrace.processes AS p
