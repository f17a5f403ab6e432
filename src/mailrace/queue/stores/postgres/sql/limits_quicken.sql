-- lock: rows (skips locked ones); index: limits_pkey; guard: slowed, and left alone for so long
UPDATE mailrace.limits AS l SET
    pace = least(1.0, l.pace + %(step)s::double precision),
    quickened_at = coalesce(%(now)s::timestamptz, now())
FROM (
    SELECT s.name FROM mailrace.limits AS s
    WHERE s.pace < 1.0
        AND greatest(s.slowed_at, s.quickened_at) <= coalesce(%(now)s::timestamptz, now())
            - make_interval(secs => %(every_s)s)
    FOR UPDATE SKIP LOCKED
) AS slowed
WHERE l.name = slowed.name
