-- lock: none; index: commands.id
SELECT id, action, target, argument, created_ms, expires_ms FROM commands
WHERE id > :after_id AND expires_ms > :now_ms
    AND target IN (SELECT value FROM json_each(:targets))
ORDER BY id
