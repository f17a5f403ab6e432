-- lock: none (inside the write of claim); index: jobs_ready; guard: state, due, not expired
INSERT INTO temp.claiming (id, queue, batch_id, state, gated)
SELECT id, queue, coalesce(batch_id, 0), state, :gated
FROM jobs
WHERE queue = :queue AND tenant = :tenant AND priority = :priority
    AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
    AND run_at_ms <= :now_ms AND (expires_ms IS NULL OR expires_ms > :now_ms)
ORDER BY run_at_ms, id LIMIT :jobs
