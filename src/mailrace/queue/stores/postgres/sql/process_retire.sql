-- lock: the process's row; index: processes_pkey, jobs_running; guard: holds nothing
DELETE FROM mailrace.processes AS p
WHERE p.id = %(process_id)s::bigint AND NOT EXISTS (
    SELECT FROM mailrace.jobs AS j WHERE j.process_id = p.id AND j.state = 'running'
)
