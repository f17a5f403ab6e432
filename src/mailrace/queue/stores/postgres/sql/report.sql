-- lock: none; index: batches_pkey, counts_batch, pace_pkey, jobs_batch
WITH steps AS MATERIALIZED (
    SELECT state, jobs, first_at, last_at FROM mailrace.counts
    WHERE batch_id = %(batch_id)s::bigint AND batch_id <> 0
    UNION ALL
    SELECT
        state, sum(jobs), min(at) FILTER (WHERE jobs > 0), max(at) FILTER (WHERE jobs > 0)
    FROM mailrace.tallies WHERE batch_id = %(batch_id)s::bigint AND batch_id <> 0 GROUP BY state
),
ends AS MATERIALIZED (
    SELECT min(first_at) AS first_at, max(last_at) AS last_at FROM steps
    WHERE state IN ('completed', 'failed', 'uncertain', 'retryable')
),
slices AS (
    SELECT p.slice, p.jobs FROM mailrace.pace AS p CROSS JOIN ends AS e
    WHERE p.slice > e.last_at - interval '1 minute' AND p.batch_id = %(batch_id)s::bigint
        AND p.state IN ('completed', 'failed', 'uncertain', 'retryable')
    UNION ALL
    SELECT t.at, t.jobs FROM mailrace.tallies AS t CROSS JOIN ends AS e
    WHERE t.at > e.last_at - interval '1 minute' AND t.batch_id = %(batch_id)s::bigint
        AND t.jobs > 0 AND t.state IN ('completed', 'failed', 'uncertain', 'retryable')
),
pace AS (
    SELECT sum(s.jobs)::double precision / greatest(
        date_part('epoch', max(e.last_at) - greatest(max(e.first_at), min(s.slice))), 1
    ) AS rate
    FROM slices AS s CROSS JOIN ends AS e
)
SELECT json_build_object(
    'id', b.id, 'name', b.name, 'kind', b.kind, 'created_ms', mailrace.unix_ms(b.created_at),
    'counts', (
        SELECT json_object_agg(s.state, coalesce(c.jobs, 0))
        FROM unnest(enum_range(NULL::mailrace.job_state)) AS s (state)
        LEFT JOIN (SELECT state, sum(jobs) AS jobs FROM steps GROUP BY state) AS c
            ON c.state = s.state
    ),
    'next_due_ms', (
        SELECT mailrace.unix_ms(min(j.run_at)) FROM mailrace.jobs AS j
        WHERE j.batch_id = b.id AND j.run_at > coalesce(%(now)s::timestamptz, now())
            AND j.state IN ('scheduled', 'available', 'retryable')
    ),
    'first_ms', (SELECT mailrace.unix_ms(first_at) FROM ends),
    'last_ms', (SELECT mailrace.unix_ms(last_at) FROM ends),
    'rate', coalesce((SELECT rate FROM pace), 0),
    'sealed', b.sealed_at IS NOT NULL,
    'completed_ms', mailrace.unix_ms(b.completed_at)
)::text
FROM mailrace.batches AS b WHERE b.id = %(batch_id)s::bigint
