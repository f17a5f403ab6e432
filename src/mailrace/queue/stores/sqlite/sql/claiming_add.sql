-- lock: none (a temporary table)
INSERT INTO temp.claiming (id, queue, batch_id, state, gated)
VALUES (:id, :queue, :batch_id, :state, 1)
