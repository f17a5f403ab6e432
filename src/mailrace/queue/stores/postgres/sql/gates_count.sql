-- lock: rows (their queue's own is held); index: jobs_running, gates_pkey; guard: the queue is bounded
-- Whoever ends a job there now waits for the gate, and takes it off what is counted here.
WITH really AS (
    SELECT k.key, count(j.id) AS running
    FROM mailrace.queues AS q
    LEFT JOIN mailrace.jobs AS j ON j.queue = q.name AND j.state = 'running' AND j.gated
    CROSS JOIN LATERAL (SELECT '' UNION ALL SELECT j.key WHERE j.key IS NOT NULL) AS k (key)
    WHERE q.name = %(queue)s AND coalesce(q.concurrency, q.concurrency_per_key) IS NOT NULL
    GROUP BY k.key
),
counted AS (
    INSERT INTO mailrace.gates (queue, key, running)
    SELECT %(queue)s, r.key, r.running FROM really AS r ORDER BY r.key
    ON CONFLICT (queue, key) DO UPDATE SET running = excluded.running
)
DELETE FROM mailrace.gates AS g
WHERE g.queue = %(queue)s AND g.key <> '' AND g.key NOT IN (SELECT r.key FROM really AS r)
