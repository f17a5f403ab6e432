-- needs: picked (id), gone (queue, batch_id, state); gives: attempts_gone and tallied
attempts_gone AS (
    DELETE FROM mailrace.attempts AS a WHERE a.job_id = ANY (ARRAY(SELECT p.id FROM picked AS p))
),
tallied AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT g.queue, coalesce(g.batch_id, 0), g.state, -count(*), coalesce(%(now)s::timestamptz, now())
    FROM gone AS g GROUP BY 1, 2, 3
)
