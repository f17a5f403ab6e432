-- lock: none; index: schedules_pkey
SELECT s.name FROM mailrace.schedules AS s WHERE s.name = %(name)s
