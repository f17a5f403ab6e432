-- lock: write; index: limits.name
UPDATE limits SET next_slot_ms = :next_slot_ms, taken_ms = :now_ms WHERE name = :name
