-- lock: write; index: jobs.id; guard: finishing_fill
UPDATE jobs SET
    state = f.state,
    run_at_ms = coalesce(f.run_at_ms, jobs.run_at_ms),
    ended_ms = iif(f.state IN ('scheduled', 'available', 'retryable'), NULL, f.at_ms),
    attempt = jobs.attempt - (f.step IN ('release', 'snooze', 'die')),
    deaths = jobs.deaths + (f.step = 'die'),
    snoozes = jobs.snoozes + (f.step = 'snooze'),
    process_id = NULL,
    gated = 0,
    cancel_requested = 0,
    category = iif(f.step = 'release', jobs.category, f.category),
    reason = iif(f.step = 'release', jobs.reason, f.reason),
    detail = iif(f.step = 'release', jobs.detail, f.detail)
FROM temp.finishing AS f
WHERE jobs.id = f.id AND f.state <> 'completed'
