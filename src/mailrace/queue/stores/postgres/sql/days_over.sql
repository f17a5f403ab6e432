-- lock: none; guard: partitions of days that ended so long ago
SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'mailrace.jobs_completed'::regclass
    AND c.relname ~ '^jobs_completed_[0-9]{8}$'
    AND mailrace.day_start(to_date(right(c.relname, 8), 'YYYYMMDD') + 1)
        <= coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_s)s)
ORDER BY 1
