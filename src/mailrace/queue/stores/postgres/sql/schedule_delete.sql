-- lock: rows; index: schedules_pkey
DELETE FROM mailrace.schedules WHERE name = %(name)s
