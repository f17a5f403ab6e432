-- lock: none (inside the write of enqueue); index: jobs.id
SELECT coalesce(max(id), 0) FROM jobs
