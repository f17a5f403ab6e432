-- lock: none; index: queues.name
SELECT name, paused, draining, concurrency, concurrency_per_key, limits, ageing_s
FROM queues ORDER BY name
