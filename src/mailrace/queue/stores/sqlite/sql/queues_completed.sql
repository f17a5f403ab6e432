-- lock: none (inside the write of retain); index: counts(queue, batch_id, state)
SELECT DISTINCT queue FROM counts WHERE state = 'completed' AND jobs > 0
