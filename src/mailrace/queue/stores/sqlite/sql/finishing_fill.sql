-- lock: none (inside the write of finish); index: jobs.id; guard: lease and state: whoever lost the lease cannot write; of two records of one lease the first counts
-- Records that are alike but for what stands in `records`: each part that is read out of JSON
-- costs as much as finding the job does. CROSS JOIN keeps SQLite from going through all jobs.
INSERT INTO temp.finishing (
    id, lease, step, state, begun, at_ms, run_at_ms, attempt, queue, batch_id, key, gated,
    category, reason, detail, result
)
SELECT
    j.id, j.lease, :step, :state, :begun, json_extract(r.value, '$[2]'), :run_at_ms,
    j.attempt, j.queue, coalesce(j.batch_id, 0), j.key, j.gated,
    :category, :reason, json_extract(r.value, '$[3]'), nullif(r.value -> '$[4]', 'null')
FROM json_each(:records) AS r CROSS JOIN jobs AS j ON j.id = json_extract(r.value, '$[0]')
WHERE j.lease = json_extract(r.value, '$[1]') AND j.state = 'running'
ON CONFLICT DO NOTHING
