-- lock: none; index: jobs_running; guard: process, lease, state running
SELECT j.id, j.lease, mailrace.claimed(j)::text
FROM mailrace.jobs AS j
WHERE j.process_id = %(process_id)s::bigint AND j.lease = %(lease)s::bigint AND j.state = 'running'
ORDER BY j.priority DESC, j.run_at, j.id
