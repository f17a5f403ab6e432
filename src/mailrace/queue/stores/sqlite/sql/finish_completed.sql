-- lock: write; index: jobs.id; guard: finishing_fill
-- The one that is written a thousand times for each of the others: nothing is weighed here.
UPDATE jobs SET
    state = 'completed',
    ended_ms = f.at_ms,
    process_id = NULL,
    gated = 0,
    cancel_requested = 0,
    category = f.category,
    reason = f.reason,
    detail = f.detail,
    result = f.result
FROM temp.finishing AS f
WHERE jobs.id = f.id AND f.state = 'completed'
