-- lock: none
SELECT name, value FROM mailrace.notes WHERE starts_with(name, %(prefix)s) ORDER BY name
