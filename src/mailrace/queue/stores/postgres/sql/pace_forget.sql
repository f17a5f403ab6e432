-- lock: rows (skips locked ones); index: pace_pkey; guard: older than 30 days
DELETE FROM mailrace.pace
WHERE ctid = ANY (ARRAY(
    SELECT p.ctid FROM mailrace.pace AS p
    WHERE p.slice < coalesce(%(now)s::timestamptz, now()) - interval '30 days'
    ORDER BY p.slice LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
))
