-- lock: row (waits for another that fires the same); index: schedule_slots_pkey; guard: not fired, and not more than 40 days before the newest
INSERT INTO mailrace.schedule_slots (name, slot)
SELECT s.name, mailrace.moment(%(slot_ms)s) FROM mailrace.schedules AS s WHERE s.name = %(name)s AND NOT EXISTS (
    SELECT FROM mailrace.schedule_slots AS n
    WHERE n.name = s.name AND n.slot > mailrace.moment(%(slot_ms)s) + interval '960 hours'
)
ON CONFLICT (name, slot) DO NOTHING
