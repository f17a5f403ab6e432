-- lock: none; guard: partitions that are named for a day
SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'mailrace.jobs_completed'::regclass
    AND c.relname ~ '^jobs_completed_[0-9]{8}$'
ORDER BY 1
