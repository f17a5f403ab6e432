-- lock: default partition, for a moment; guard: the day has none, and no row elsewhere
SELECT mailrace.add_day((coalesce(%(now)s::timestamptz, now()) AT TIME ZONE 'UTC')::date + %(ahead)s)
