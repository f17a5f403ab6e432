-- lock: rows (their queue's own is held); index: gates_pkey; guard: nothing bounds the queue
DELETE FROM mailrace.gates AS g
WHERE g.queue = %(queue)s AND NOT EXISTS (
    SELECT FROM mailrace.queues AS q
    WHERE q.name = g.queue AND coalesce(q.concurrency, q.concurrency_per_key) IS NOT NULL
)
