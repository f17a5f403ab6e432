-- lock: rows (skips locked ones); index: schedule_slots_pkey; guard: more than 40 days before the newest of its schedule
DELETE FROM mailrace.schedule_slots
WHERE ctid = ANY (ARRAY(
    SELECT o.ctid
    FROM mailrace.schedules AS s
    CROSS JOIN LATERAL (
        SELECT n.slot FROM mailrace.schedule_slots AS n
        WHERE n.name = s.name ORDER BY n.slot DESC LIMIT 1
    ) AS newest
    JOIN mailrace.schedule_slots AS o ON o.name = s.name AND o.slot < newest.slot - interval '960 hours'
    LIMIT %(limit)s
    FOR UPDATE OF o SKIP LOCKED
))
