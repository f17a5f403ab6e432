-- lock: write; index: limits.name; guard: slots and pace of one that is there go on
INSERT INTO limits (name, rates, margin, adaptive, pace, next_slot_ms)
VALUES (:name, :rates, :margin, :adaptive, :pace, :next_slot_ms)
ON CONFLICT (name) DO UPDATE SET
    rates = excluded.rates, margin = excluded.margin, adaptive = excluded.adaptive
