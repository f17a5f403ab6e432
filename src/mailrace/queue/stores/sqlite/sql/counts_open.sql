-- lock: write
INSERT INTO counts (batch_id, state, jobs) VALUES (:batch_id, :state, 0)
