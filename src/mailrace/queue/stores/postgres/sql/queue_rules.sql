-- lock: none
SELECT name, paused, draining, concurrency, concurrency_per_key, limits, ageing_s
FROM mailrace.queues ORDER BY name
