-- lock: none; index: answers_pkey
SELECT command_id, by, done, text, mailrace.unix_ms(at)
FROM mailrace.answers WHERE command_id = %(command_id)s ORDER BY at, by
