-- lock: write; index: throughput(minute, queue, state)
INSERT INTO throughput (minute, queue, state, jobs) VALUES (:minute, :queue, :state, :jobs)
ON CONFLICT (minute, queue, state) DO UPDATE SET jobs = jobs + excluded.jobs
