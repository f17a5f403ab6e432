-- lock: none; index: limits.name
SELECT name, rates, margin, adaptive, pace, next_slot_ms, taken_ms
FROM limits WHERE rates <> '' ORDER BY name
