-- lock: none; index: schedule_slots_pkey
SELECT
    s.name, s.cron, s.zone, s.catch_up, s.job, s.paused,
    (
        SELECT mailrace.unix_ms(t.slot) FROM mailrace.schedule_slots AS t
        WHERE t.name = s.name ORDER BY t.slot DESC LIMIT 1
    ) AS last_slot_ms,
    mailrace.unix_ms(s.created_at)
FROM mailrace.schedules AS s ORDER BY s.name
