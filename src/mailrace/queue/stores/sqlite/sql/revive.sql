-- lock: write; index: jobs.id; guard: the choice, in the same transaction
UPDATE jobs SET
    state = 'available', run_at_ms = :now_ms, ended_ms = NULL,
    expires_ms = iif(expires_ms <= :now_ms, NULL, expires_ms),
    attempt = 0, deaths = 0, snoozes = 0, category = '', reason = '', detail = ''
WHERE id IN (SELECT id FROM temp.chosen)
