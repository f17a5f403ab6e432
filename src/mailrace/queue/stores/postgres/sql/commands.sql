-- lock: none; index: commands_pkey; guard: not expired
SELECT
    id, action, target, argument, mailrace.unix_ms(created_at), mailrace.unix_ms(expires_at)
FROM mailrace.commands
WHERE id > %(after_id)s AND target = ANY (%(targets)s::text[])
    AND expires_at > coalesce(%(now)s::timestamptz, now())
ORDER BY id
