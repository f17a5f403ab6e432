-- lock: table, for a moment or not at all; index: attempts_at
SELECT mailrace.drop_day(%(day)s::date, coalesce(%(now)s::timestamptz, now()))
