-- lock: none (inside the write of rescue); index: jobs_running
SELECT id, lease FROM jobs WHERE process_id = :process_id AND state = 'running'
