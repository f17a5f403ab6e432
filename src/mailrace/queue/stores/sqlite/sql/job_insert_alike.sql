-- lock: write; index: jobs.id, jobs_unique
-- Jobs that are alike but for keys and payloads: each part that is read out of JSON costs as much
-- as adding the job does. The operator -> gives the payload as the text that it was.
INSERT INTO jobs (
    id, kind, queue, tenant, priority, run_at_ms, state, expires_ms, batch_id, attempts, lane, tags,
    created_ms, key, unique_digest, payload
)
SELECT
    :first_id + r.key, :kind, :queue, :tenant, :priority, :run_at_ms, :state, :expires_ms,
    :batch_id, :attempts, :lane, :tags, :now_ms,
    json_extract(r.value, '$[0]'), json_extract(r.value, '$[1]'), r.value -> '$[2]'
FROM json_each(:jobs) AS r
