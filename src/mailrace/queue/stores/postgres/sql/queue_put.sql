-- lock: row; index: queues_pkey
-- Where there is a row only what is named is changed: two may change different fields at once.
INSERT INTO mailrace.queues AS q (
    name, paused, draining, concurrency, concurrency_per_key, limits, ageing_s
)
VALUES (
    %(name)s, %(paused)s, %(draining)s, %(concurrency)s, %(concurrency_per_key)s,
    %(limits)s::text[], %(ageing_s)s
)
ON CONFLICT (name) DO UPDATE SET
    paused = CASE
        WHEN 'paused' = ANY (%(only)s::text[])
            THEN excluded.paused
        ELSE q.paused
    END,
    draining = CASE
        WHEN 'draining' = ANY (%(only)s::text[])
            THEN excluded.draining
        ELSE q.draining
    END,
    concurrency = CASE
        WHEN 'concurrency' = ANY (%(only)s::text[])
            THEN excluded.concurrency
        ELSE q.concurrency
    END,
    concurrency_per_key = CASE
        WHEN 'concurrency_per_key' = ANY (%(only)s::text[])
            THEN excluded.concurrency_per_key
        ELSE q.concurrency_per_key
    END,
    limits = CASE
        WHEN 'limits' = ANY (%(only)s::text[])
            THEN excluded.limits
        ELSE q.limits
    END,
    ageing_s = CASE
        WHEN 'ageing_s' = ANY (%(only)s::text[])
            THEN excluded.ageing_s
        ELSE q.ageing_s
    END
