-- lock: write; index: jobs_running; guard: state
-- What runs already counts from now on, if the queue has a bound.
UPDATE jobs SET gated = :gated
WHERE id IN (SELECT id FROM jobs WHERE state = 'running' AND queue = :queue AND gated <> :gated)
