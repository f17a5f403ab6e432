-- lock: write; index: queues.name
-- Where there is a row only what is named is changed: two may change different fields at once.
INSERT INTO queues AS q (name, paused, draining, concurrency, concurrency_per_key, limits, ageing_s)
VALUES (:name, :paused, :draining, :concurrency, :concurrency_per_key, :limits, :ageing_s)
ON CONFLICT (name) DO UPDATE SET
    paused = CASE
        WHEN 'paused' IN (SELECT value FROM json_each(:only))
            THEN excluded.paused
        ELSE q.paused
    END,
    draining = CASE
        WHEN 'draining' IN (SELECT value FROM json_each(:only))
            THEN excluded.draining
        ELSE q.draining
    END,
    concurrency = CASE
        WHEN 'concurrency' IN (SELECT value FROM json_each(:only))
            THEN excluded.concurrency
        ELSE q.concurrency
    END,
    concurrency_per_key = CASE
        WHEN 'concurrency_per_key' IN (SELECT value FROM json_each(:only))
            THEN excluded.concurrency_per_key
        ELSE q.concurrency_per_key
    END,
    limits = CASE
        WHEN 'limits' IN (SELECT value FROM json_each(:only))
            THEN excluded.limits
        ELSE q.limits
    END,
    ageing_s = CASE
        WHEN 'ageing_s' IN (SELECT value FROM json_each(:only))
            THEN excluded.ageing_s
        ELSE q.ageing_s
    END
