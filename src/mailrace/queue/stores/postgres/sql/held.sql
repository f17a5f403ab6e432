-- lock: none; index: jobs_running
SELECT id, lease FROM mailrace.jobs WHERE process_id = %(process_id)s AND state = 'running'
