-- lock: none
INSERT INTO mailrace.commands (action, target, argument, created_at, expires_at)
VALUES (
    %(action)s, %(target)s, %(argument)s, coalesce(%(now)s::timestamptz, now()),
    coalesce(%(now)s::timestamptz, now()) + make_interval(secs => %(expires_in_s)s)
)
RETURNING id
