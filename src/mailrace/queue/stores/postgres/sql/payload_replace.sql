-- lock: rows (skips locked ones); index: jobs_pkey, jobs_completed_id, jobs_ended_pkey; guard: lease, not running
-- A job that has moved to another table since it was read is found there: its lease tells whether
-- it was claimed. Nobody is waited for, so that no claim and no finish ever waits in a circle.
WITH given AS MATERIALIZED (
    SELECT g.id, g.lease, g.payload::json AS payload
    FROM unnest(%(ids)s::bigint[], %(leases)s::bigint[], %(payloads)s::text[])
        AS g (id, lease, payload)
),
of_live AS MATERIALIZED (
    SELECT j.id FROM mailrace.jobs AS j JOIN given AS g ON g.lease = j.lease AND g.id = j.id
    WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state::text <> 'running'
    FOR UPDATE OF j SKIP LOCKED
),
of_completed AS MATERIALIZED (
    SELECT c.id FROM mailrace.jobs_completed AS c
    JOIN given AS g ON g.lease = c.lease AND g.id = c.id
    WHERE c.id = ANY (%(ids)s::bigint[])
    FOR UPDATE OF c SKIP LOCKED
),
of_ended AS MATERIALIZED (
    SELECT e.id FROM mailrace.jobs_ended AS e JOIN given AS g ON g.lease = e.lease AND g.id = e.id
    WHERE e.id = ANY (%(ids)s::bigint[])
    FOR UPDATE OF e SKIP LOCKED
),
live AS (
    UPDATE mailrace.jobs AS j SET payload = g.payload FROM given AS g
    WHERE j.id = g.id AND j.id = ANY (ARRAY(SELECT o.id FROM of_live AS o))
    RETURNING j.id
),
completed AS (
    UPDATE mailrace.jobs_completed AS c SET payload = g.payload FROM given AS g
    WHERE c.id = g.id AND c.id = ANY (ARRAY(SELECT o.id FROM of_completed AS o))
    RETURNING c.id
),
ended AS (
    UPDATE mailrace.jobs_ended AS e SET payload = g.payload FROM given AS g
    WHERE e.id = g.id AND e.id = ANY (ARRAY(SELECT o.id FROM of_ended AS o))
    RETURNING e.id
)
SELECT l.id FROM live AS l
UNION ALL SELECT c.id FROM completed AS c
UNION ALL SELECT e.id FROM ended AS e
