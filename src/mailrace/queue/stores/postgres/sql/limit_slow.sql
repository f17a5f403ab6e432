-- lock: row; index: limits_pkey; guard: adaptive, and not slowed within the cool-down; a clock that was set back ends it
WITH slowed AS (
    UPDATE mailrace.limits AS l SET
        pace = least(l.pace, greatest(%(floor)s::double precision, l.pace * %(factor)s)),
        slowed_at = coalesce(%(now)s::timestamptz, now())
    WHERE l.name = %(name)s AND l.adaptive
        AND (
            coalesce(%(now)s::timestamptz, now()) < l.slowed_at
            OR coalesce(%(now)s::timestamptz, now())
                >= l.slowed_at + make_interval(secs => %(cool_down_s)s)
        )
    RETURNING l.pace
)
SELECT s.pace FROM slowed AS s
UNION ALL
SELECT l.pace FROM mailrace.limits AS l
WHERE l.name = %(name)s AND NOT EXISTS (SELECT FROM slowed)
