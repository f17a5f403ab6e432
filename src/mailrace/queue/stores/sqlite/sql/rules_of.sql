-- lock: none (inside the write of claim); index: queues.name
SELECT name, paused, concurrency, concurrency_per_key FROM queues
WHERE name IN (SELECT value FROM json_each(:queues))
    AND (paused OR concurrency IS NOT NULL OR concurrency_per_key IS NOT NULL)
