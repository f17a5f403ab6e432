-- lock: row; index: turns_pkey; guard: it is time, or a clock that was set back left it too far ahead
INSERT INTO mailrace.turns AS t (name, next_at)
VALUES (%(name)s, coalesce(%(now)s::timestamptz, now()) + make_interval(secs => %(every_s)s))
ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at
WHERE t.next_at <= coalesce(%(now)s::timestamptz, now())
    OR t.next_at > excluded.next_at + interval '1 minute'
