-- lock: none (inside the write of claim); index: jobs_ready; guard: state, due, not expired
SELECT id, key, coalesce(batch_id, 0), state FROM jobs
WHERE queue = :queue AND tenant = :tenant AND priority = :priority
    AND state IN ('scheduled', 'available', 'retryable') AND NOT blocked
    AND run_at_ms <= :now_ms AND (expires_ms IS NULL OR expires_ms > :now_ms)
    AND id NOT IN (SELECT id FROM temp.claiming)
ORDER BY run_at_ms, id LIMIT :jobs
