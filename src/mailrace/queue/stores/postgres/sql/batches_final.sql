-- lock: none; index: batches_open, counts_pkey; guard: sealed, and not completed yet
-- One snapshot: who ends the last job later is seen by the next call. A completion job has to wait
-- while its queue is draining.
WITH waiting AS (
    SELECT l.batch_id FROM (
        SELECT c.batch_id, c.state, c.jobs FROM mailrace.counts AS c WHERE c.batch_id <> 0
        UNION ALL
        SELECT t.batch_id, t.state, t.jobs FROM mailrace.tallies AS t WHERE t.batch_id <> 0
    ) AS l
    WHERE l.state IN ('scheduled', 'available', 'running', 'retryable')
        AND l.batch_id IN (
            SELECT b.id FROM mailrace.batches AS b
            WHERE b.sealed_at IS NOT NULL AND b.completed_at IS NULL
        )
    GROUP BY l.batch_id HAVING sum(l.jobs) <> 0
)
SELECT b.id, b.name, b.completion FROM mailrace.batches AS b
WHERE b.sealed_at IS NOT NULL AND b.completed_at IS NULL
    AND b.id NOT IN (SELECT w.batch_id FROM waiting AS w)
    AND NOT EXISTS (
        SELECT FROM mailrace.queues AS q
        WHERE q.draining AND q.name = coalesce(b.completion ->> 'queue', 'default')
            AND b.completion IS NOT NULL
    )
ORDER BY b.id LIMIT 1000
