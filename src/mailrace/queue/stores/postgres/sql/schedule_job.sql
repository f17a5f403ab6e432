-- lock: none; index: schedules_pkey
SELECT s.job FROM mailrace.schedules AS s WHERE s.name = %(name)s
