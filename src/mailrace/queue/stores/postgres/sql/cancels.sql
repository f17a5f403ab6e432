-- lock: none; index: jobs_cancelling
SELECT j.id FROM mailrace.jobs AS j
WHERE j.process_id = %(process_id)s AND j.state = 'running' AND j.cancel_requested
ORDER BY j.id
