-- lock: write; index: keys.digest; guard: keys_select, in the same transaction
INSERT INTO keys (digest, job_id, batch_id, created_ms)
SELECT r.value ->> '$[0]', r.value ->> '$[1]', r.value ->> '$[2]', :now_ms
FROM json_each(:keys) AS r
