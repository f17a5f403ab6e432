-- lock: rows (skips locked ones); guard: not set by hand, not used for a day, and no slot of it is still to come
DELETE FROM mailrace.limits
WHERE ctid = ANY (ARRAY(
    SELECT l.ctid FROM mailrace.limits AS l
    WHERE NOT l.set_by_hand
        AND l.used_at < coalesce(%(now)s::timestamptz, now()) - interval '1 day'
        AND l.next_slot < coalesce(%(now)s::timestamptz, now())
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
))
