-- lock: row; index: notes_pkey
INSERT INTO mailrace.notes (name, value) VALUES (%(name)s, %(value)s::json)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
