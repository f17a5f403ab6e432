-- needs: leaving (what was deleted from jobs), target (state); gives: an insert into jobs_ended
INSERT INTO mailrace.jobs_ended (
    id, state, ended_at, created_at, run_at, expires_at, lease, process_id, batch_id, priority,
    attempt, attempts, deaths, snoozes, queue, tenant, kind, lane, key, unique_digest,
    category, reason, detail, tags, payload
)
SELECT
    j.id, t.state, coalesce(%(now)s::timestamptz, now()), j.created_at, j.run_at, j.expires_at,
    j.lease, j.process_id, j.batch_id, j.priority, j.attempt, j.attempts, j.deaths, j.snoozes,
    j.queue, j.tenant, j.kind, j.lane, j.key, j.unique_digest,
    coalesce(a.category, ''), coalesce(a.reason, ''), coalesce(a.detail, ''), j.tags, j.payload
FROM leaving AS j
CROSS JOIN target AS t
-- fragment: last_attempt
