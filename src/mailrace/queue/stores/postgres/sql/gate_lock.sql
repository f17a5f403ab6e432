-- lock: row; index: gates_pkey; guard: whoever holds a queue's own gate holds all that belong to it
INSERT INTO mailrace.gates AS g (queue, key, running) VALUES (%(queue)s, '', 0)
ON CONFLICT (queue, key) DO UPDATE SET running = g.running
