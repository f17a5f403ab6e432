-- lock: the jobs that begin; index: jobs_pkey; guard: lease, process, state running
-- The state is compared as text so that the planner does not take jobs_running: when nothing ran as
-- statistics were made it seems to be empty, and may be full of what was.
-- What it notes is for others to see, not to survive the server: nothing is synced for it.
WITH careless AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS setting)
UPDATE mailrace.jobs AS j SET begun = true
FROM unnest(%(ids)s::bigint[], %(leases)s::bigint[]) AS b (id, lease) CROSS JOIN careless
WHERE j.id = b.id AND j.lease = b.lease AND j.process_id = %(process_id)s::bigint
    AND j.state::text = 'running' AND careless.setting = 'off'
RETURNING j.id
