-- lock: none; index: arrivals.queue
SELECT coalesce(sum(number), 0) FROM arrivals
WHERE :every OR queue IN (SELECT value FROM json_each(:queues))
