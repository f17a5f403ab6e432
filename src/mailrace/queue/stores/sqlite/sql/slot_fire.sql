-- lock: write; index: schedule_slots(name, slot_ms); guard: a slot is fired once
INSERT INTO schedule_slots (name, slot_ms, job_id) VALUES (:name, :slot_ms, :job_id)
ON CONFLICT DO NOTHING
