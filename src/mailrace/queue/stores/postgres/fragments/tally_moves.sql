-- needs: leaving (queue, batch_id, state), target (state); gives: an insert of their tallies
INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
SELECT l.queue, coalesce(l.batch_id, 0), s.state, sum(s.jobs), coalesce(%(now)s::timestamptz, now())
FROM leaving AS l
CROSS JOIN target AS t
CROSS JOIN LATERAL (VALUES (l.state, -1), (t.state, 1)) AS s (state, jobs)
GROUP BY 1, 2, 3 HAVING sum(s.jobs) <> 0
