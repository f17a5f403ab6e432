-- lock: write; index: schedule_slots(name, slot_ms)
DELETE FROM schedule_slots WHERE name = :name
