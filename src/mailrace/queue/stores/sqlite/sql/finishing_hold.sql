-- lock: none (inside the write of rescue); index: jobs_running; guard: state
-- What a process held, as records: uncertain where it may have been begun, else released.
INSERT INTO temp.finishing (
    id, lease, step, state, begun, at_ms, attempt, queue, batch_id, key, gated,
    category, reason, detail
)
SELECT
    id, lease,
    iif(once AND :lost, 'lose', 'release'), iif(once AND :lost, 'uncertain', 'available'),
    once AND :lost, :now_ms, attempt, queue, coalesce(batch_id, 0), key, gated,
    iif(once AND :lost, 'system', ''), iif(once AND :lost, 'no reply', ''),
    iif(once AND :lost, :detail, '')
FROM jobs WHERE process_id = :process_id AND state = 'running'
