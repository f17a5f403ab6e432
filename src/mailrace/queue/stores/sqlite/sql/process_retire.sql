-- lock: write; index: processes.id, jobs_running; guard: a process that holds jobs is left to be rescued
DELETE FROM processes
WHERE id = :process_id
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE process_id = :process_id AND state = 'running')
