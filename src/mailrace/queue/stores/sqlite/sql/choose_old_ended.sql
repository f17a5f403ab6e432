-- lock: none (inside the write of retain); index: jobs_ended; guard: state
INSERT INTO temp.chosen
SELECT id FROM jobs
WHERE state = :state AND ended_ms < :before_ms AND ended_ms IS NOT NULL AND state <> 'completed'
ORDER BY ended_ms LIMIT :limit
