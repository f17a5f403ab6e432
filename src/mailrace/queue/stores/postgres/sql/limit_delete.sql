-- lock: row; index: limits_pkey
DELETE FROM mailrace.limits WHERE name = %(name)s
