-- lock: write
INSERT INTO processes (
    journal, expires_ms, started_ms, heartbeat_ms, pid, concurrency,
    node, host, version, supervisor, queues, vitals
)
VALUES (
    :journal, :expires_ms, :now_ms, :now_ms, :pid, :concurrency,
    :node, :host, :version, :supervisor, :queues, :vitals
)
RETURNING id
