-- lock: none (inside the writes of claim and finish); index: jobs_gated
SELECT count(*) FROM jobs WHERE queue = :queue AND key = :key AND gated AND state = 'running'
