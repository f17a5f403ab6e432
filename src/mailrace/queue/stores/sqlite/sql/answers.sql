-- lock: none; index: answers(command_id, by)
SELECT command_id, by, done, text, at_ms FROM answers WHERE command_id = :command_id
ORDER BY at_ms, by
