-- lock: write; index: jobs.id; guard: finishing_fence
UPDATE jobs SET
    state = f.state,
    run_at_ms = f.run_at_ms,
    attempt = attempt - (f.step = 'release'),
    process_id = NULL
FROM temp.finishing AS f
WHERE jobs.id = f.id
