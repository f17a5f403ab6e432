-- lock: write; index: jobs.id; guard: claiming_fill, in the same transaction
UPDATE jobs SET
    state = 'running',
    attempt = attempt + 1,
    lease = :lease,
    process_id = :process_id,
    once = CASE
        WHEN lane IS NULL THEN kind IN (SELECT value FROM json_each(:once))
        ELSE lane = 'campaign'
    END,
    gated = :gated
WHERE id IN (SELECT id FROM temp.claiming WHERE gated = :gated)
