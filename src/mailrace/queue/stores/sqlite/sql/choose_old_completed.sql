-- lock: none (inside the write of retain); index: jobs_completed; guard: state
INSERT INTO temp.chosen
SELECT id FROM jobs
WHERE queue = :queue AND state = 'completed' AND ended_ms < :before_ms ORDER BY ended_ms LIMIT :limit
