-- lock: row; index: limits_pkey; guard: a next slot farther ahead than a thousand processes could have taken is what a clock left behind that was set back
UPDATE mailrace.limits AS l SET
    next_slot = CASE
        WHEN l.next_slot > t.present + make_interval(
            secs => 3600 + 1000 * greatest(%(span_s)s::double precision, l.interval_s / l.pace)
        ) THEN t.present
        ELSE greatest(l.next_slot, t.present)
    END + make_interval(
        secs => least(10000, greatest(1, floor(%(span_s)s::double precision * l.pace / l.interval_s)))
            * l.interval_s / l.pace
    ),
    used_at = t.present
FROM (SELECT coalesce(%(now)s::timestamptz, now()) AS present) AS t
WHERE l.name = %(name)s
RETURNING
    date_part('epoch', l.next_slot - t.present) AS until_s, l.interval_s / l.pace AS interval_s,
    l.grace_s,
    least(10000, greatest(1, floor(%(span_s)s::double precision * l.pace / l.interval_s)))::integer
