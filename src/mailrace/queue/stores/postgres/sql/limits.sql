-- lock: none
SELECT name, rates, margin, adaptive, pace, date_part('epoch', next_slot) * 1000
FROM mailrace.limits ORDER BY name
