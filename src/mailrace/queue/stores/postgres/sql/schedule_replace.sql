-- lock: row; index: schedules_pkey; guard: nobody has given it another job
UPDATE mailrace.schedules AS s SET job = %(job)s::json
WHERE s.name = %(name)s AND s.job::text = %(expected)s
