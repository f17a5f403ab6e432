-- lock: none
SELECT
    id, journal, expires_ms, started_ms, heartbeat_ms, pid, concurrency,
    node, host, version, supervisor, queues, vitals
FROM processes ORDER BY id
