-- lock: write; index: arrivals.queue
INSERT INTO arrivals (queue, number) VALUES (:queue, 1)
ON CONFLICT (queue) DO UPDATE SET number = number + 1
