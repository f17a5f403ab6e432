-- lock: write; index: jobs_key; guard: a key that the batch has already is left as it is
INSERT INTO jobs (id, batch_id, key, state)
SELECT :first_id + key, :batch_id, json_extract(value, '$[0]'), 'available'
FROM json_each(:jobs)
WHERE true
ON CONFLICT (batch_id, key) DO NOTHING
