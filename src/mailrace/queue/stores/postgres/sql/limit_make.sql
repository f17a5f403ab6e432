-- lock: row; index: limits_pkey; guard: there is none of that name
INSERT INTO mailrace.limits (
    name, rates, margin, adaptive, pace, interval_s, grace_s, next_slot, slowed_at, quickened_at,
    used_at, set_by_hand
)
VALUES (
    %(name)s, %(rates)s, %(margin)s, %(adaptive)s, %(pace)s, %(interval_s)s, %(grace_s)s,
    coalesce(%(now)s::timestamptz, now()), '-infinity', '-infinity',
    coalesce(%(now)s::timestamptz, now()), false
)
ON CONFLICT (name) DO NOTHING
