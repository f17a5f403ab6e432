-- lock: row; index: notes_pkey
DELETE FROM mailrace.notes WHERE name = %(name)s
