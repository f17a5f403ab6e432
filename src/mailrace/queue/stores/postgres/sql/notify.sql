-- lock: the server's one lock on notifications, for the length of this statement; index: none
-- Not synced to disk: others wait for the lock meanwhile.
SELECT pg_notify('mailrace', queue), set_config('synchronous_commit', 'off', true)
FROM unnest(%(queues)s::text[]) AS queue
