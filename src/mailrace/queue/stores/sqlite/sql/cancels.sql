-- lock: none; index: jobs_cancelling
SELECT id FROM jobs
WHERE process_id = :process_id AND cancel_requested AND state = 'running' ORDER BY id
