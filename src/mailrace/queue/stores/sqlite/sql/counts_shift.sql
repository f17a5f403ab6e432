-- lock: write; index: counts(queue, batch_id, state); guard: jobs >= 0
INSERT INTO counts (queue, batch_id, state, jobs) VALUES (:queue, :batch_id, :state, max(:jobs, 0))
ON CONFLICT (queue, batch_id, state) DO UPDATE SET jobs = jobs + :jobs
