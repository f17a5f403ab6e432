-- lock: none; index: jobs_running, gates_pkey; guard: one snapshot, in which the gates tell of every running job unless one is wrong
-- Also those of queues without rules, and many that nothing runs behind.
WITH really AS (
    SELECT j.queue, k.key, count(*) AS running
    FROM mailrace.jobs AS j
    JOIN mailrace.queues AS q ON q.name = j.queue
        AND coalesce(q.concurrency, q.concurrency_per_key) IS NOT NULL
    CROSS JOIN LATERAL (SELECT '' UNION ALL SELECT j.key WHERE j.key IS NOT NULL) AS k (key)
    WHERE j.state = 'running'
    GROUP BY j.queue, k.key
)
SELECT coalesce(r.queue, g.queue) AS queue
FROM really AS r
FULL JOIN mailrace.gates AS g ON g.queue = r.queue AND g.key = r.key
GROUP BY 1
HAVING count(*) FILTER (WHERE coalesce(r.running, 0) <> coalesce(g.running, 0)) > 0
    OR count(*) FILTER (WHERE r.running IS NULL) > 1000
ORDER BY 1
