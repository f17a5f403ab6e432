-- lock: the limits' rows, in the order of their names; index: limits_pkey; guard: none of them would wait longer than the slack for the last one
WITH locked AS MATERIALIZED (
    SELECT
        l.name, l.interval_s / l.pace AS interval_s, l.grace_s, t.present,
        CASE
            WHEN l.next_slot > t.present
                + make_interval(secs => 3600 + 1000 * l.interval_s / l.pace) THEN t.present
            ELSE greatest(l.next_slot, t.present)
        END AS ready
    FROM mailrace.limits AS l
    CROSS JOIN (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS present) AS t
    WHERE l.name = ANY (%(names)s::text[])
    ORDER BY l.name
    FOR UPDATE OF l
),
moment AS MATERIALIZED (
    SELECT
        count(*) = %(many)s::bigint
            AND max(ready) - min(ready) <= make_interval(secs => %(slack_s)s::double precision)
            AS taken,
        max(ready) AS at
    FROM locked
),
noted AS (
    UPDATE mailrace.limits AS l SET
        next_slot = m.at + make_interval(secs => k.interval_s), used_at = k.present
    FROM locked AS k CROSS JOIN moment AS m
    WHERE l.name = k.name AND m.taken
)
SELECT
    k.name, m.taken, date_part('epoch', m.at - k.present) AS in_s,
    min(k.grace_s) OVER () AS grace_s, max(k.interval_s) OVER () AS interval_s
FROM locked AS k CROSS JOIN moment AS m
ORDER BY k.ready DESC
