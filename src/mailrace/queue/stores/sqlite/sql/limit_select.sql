-- lock: none (inside the write of take_slots); index: limits.name
SELECT next_slot_us FROM limits WHERE name = :name
