-- lock: write; index: limits.name
INSERT INTO limits (name, next_slot_us) VALUES (:name, :next_slot_us)
ON CONFLICT (name) DO UPDATE SET next_slot_us = excluded.next_slot_us
