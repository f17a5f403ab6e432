-- lock: none (inside the write of claim); index: jobs_gated
SELECT count(*) FROM jobs WHERE queue = :queue AND gated AND state = 'running'
