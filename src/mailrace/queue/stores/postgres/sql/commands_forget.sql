-- lock: rows (skips locked ones); guard: expired 7 days ago
DELETE FROM mailrace.commands
WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM mailrace.commands AS c
    WHERE c.expires_at < coalesce(%(now)s::timestamptz, now()) - interval '7 days'
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
))
