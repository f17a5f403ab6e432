-- lock: the jobs; index: jobs_running; guard: state running
SELECT id, lease, once AND (begun OR NOT %(trusted)s::boolean)
FROM mailrace.jobs
WHERE process_id = %(process_id)s::bigint AND state = 'running'
ORDER BY id
FOR UPDATE
