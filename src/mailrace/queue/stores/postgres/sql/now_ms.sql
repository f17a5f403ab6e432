-- lock: none
SELECT mailrace.unix_ms(coalesce(%(now)s::timestamptz, clock_timestamp()))
