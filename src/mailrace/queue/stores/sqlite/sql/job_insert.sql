-- lock: write; index: jobs.id, jobs_unique
-- The operator -> gives the payload as the text that it was; json_extract would take it apart.
INSERT INTO jobs (
    id, kind, queue, tenant, priority, run_at_ms, state, expires_ms, batch_id, attempts, lane, tags,
    created_ms, key, unique_digest, payload
)
SELECT
    :first_id + r.key,
    json_extract(r.value, '$[0]'), json_extract(r.value, '$[1]'), json_extract(r.value, '$[2]'),
    json_extract(r.value, '$[3]'), json_extract(r.value, '$[4]'), json_extract(r.value, '$[5]'),
    json_extract(r.value, '$[6]'), json_extract(r.value, '$[7]'), json_extract(r.value, '$[8]'),
    json_extract(r.value, '$[9]'), json_extract(r.value, '$[10]'), :now_ms,
    json_extract(r.value, '$[11]'), json_extract(r.value, '$[12]'), r.value -> '$[13]'
FROM json_each(:jobs) AS r
