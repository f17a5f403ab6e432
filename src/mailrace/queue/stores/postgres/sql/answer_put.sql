-- lock: row; index: answers_pkey, commands_pkey; guard: the command is still kept
INSERT INTO mailrace.answers (command_id, by, done, text, at)
SELECT c.id, %(by)s, %(done)s, %(text)s, coalesce(%(now)s::timestamptz, now())
FROM mailrace.commands AS c WHERE c.id = %(command_id)s
ON CONFLICT (command_id, by) DO UPDATE SET
    done = excluded.done, text = excluded.text, at = excluded.at
