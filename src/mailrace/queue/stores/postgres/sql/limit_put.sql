-- lock: row; index: limits_pkey; guard: one that is there keeps its slots and its pace
INSERT INTO mailrace.limits (
    name, rates, margin, adaptive, pace, interval_s, grace_s, next_slot, slowed_at, quickened_at,
    used_at, set_by_hand
)
VALUES (
    %(name)s, %(rates)s, %(margin)s, %(adaptive)s, %(pace)s, %(interval_s)s, %(grace_s)s,
    coalesce(%(now)s::timestamptz, now()), '-infinity', '-infinity',
    coalesce(%(now)s::timestamptz, now()), true
)
ON CONFLICT (name) DO UPDATE SET
    rates = excluded.rates, margin = excluded.margin, adaptive = excluded.adaptive,
    interval_s = excluded.interval_s, grace_s = excluded.grace_s, set_by_hand = true
