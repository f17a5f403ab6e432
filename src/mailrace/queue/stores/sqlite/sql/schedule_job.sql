-- lock: none (inside the write of fire); index: schedules.name, schedule_slots(name, slot_ms)
SELECT job, (SELECT max(slot_ms) FROM schedule_slots AS t WHERE t.name = s.name)
FROM schedules AS s WHERE name = :name
