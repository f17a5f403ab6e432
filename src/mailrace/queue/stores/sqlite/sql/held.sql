-- lock: none; index: jobs_running
SELECT id, lease FROM jobs WHERE process_id = :process_id AND state = 'running'
