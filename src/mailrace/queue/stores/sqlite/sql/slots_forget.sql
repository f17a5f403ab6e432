-- lock: write; index: schedule_slots(name, slot_ms); guard: the newest of each is kept
DELETE FROM schedule_slots AS o
WHERE slot_ms < (SELECT max(slot_ms) FROM schedule_slots AS n WHERE n.name = o.name) - :kept_ms
