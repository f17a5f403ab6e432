-- lock: write; index: pace(batch_id, slice)
INSERT INTO pace (batch_id, slice, attempts) VALUES (:batch_id, :slice, :attempts)
ON CONFLICT (batch_id, slice) DO UPDATE SET attempts = attempts + excluded.attempts
