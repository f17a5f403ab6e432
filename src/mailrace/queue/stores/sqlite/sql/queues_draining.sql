-- lock: none (inside the write of enqueue); index: queues.name
SELECT name FROM queues WHERE draining AND name IN (SELECT value FROM json_each(:queues))
