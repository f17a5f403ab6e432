-- lock: none; index: schedules.name, schedule_slots(name, slot_ms)
SELECT
    name, cron, zone, catch_up, job, paused, created_ms,
    (SELECT max(slot_ms) FROM schedule_slots AS t WHERE t.name = s.name)
FROM schedules AS s ORDER BY name
