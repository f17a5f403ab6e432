-- lock: rows (skips locked ones, which are just ending); index: jobs_running; guard: running, in a queue that is bounded
UPDATE mailrace.jobs AS j SET gated = true
FROM (
    SELECT r.id FROM mailrace.jobs AS r
    WHERE r.state = 'running' AND r.queue = %(queue)s AND NOT r.gated
        AND EXISTS (
            SELECT FROM mailrace.queues AS q
            WHERE q.name = r.queue AND coalesce(q.concurrency, q.concurrency_per_key) IS NOT NULL
        )
    FOR UPDATE SKIP LOCKED
) AS r
WHERE j.id = r.id
