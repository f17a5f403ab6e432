-- lock: none; index: pace_pkey
-- What is not folded yet lies in the tallies.
SELECT
    p.queue, mailrace.unix_ms(p.start) AS start_ms,
    coalesce(sum(p.jobs) FILTER (WHERE p.state = 'completed'), 0)::bigint,
    coalesce(sum(p.jobs) FILTER (WHERE p.state IN ('failed', 'uncertain')), 0)::bigint,
    coalesce(sum(p.jobs) FILTER (WHERE p.state = 'retryable'), 0)::bigint
FROM (
    SELECT s.queue, s.state, s.jobs, to_timestamp(floor(date_part('epoch', s.at) / 60) * 60) AS start
    FROM (
        SELECT c.queue, c.state, c.jobs, c.slice AS at FROM mailrace.pace AS c
        WHERE c.slice >= mailrace.moment(%(from_ms)s)
        UNION ALL
        SELECT t.queue, t.state, t.jobs, t.at FROM mailrace.tallies AS t
        WHERE t.jobs > 0 AND t.at >= mailrace.moment(%(from_ms)s)
    ) AS s
    WHERE s.state IN ('completed', 'failed', 'uncertain', 'retryable')
) AS p
GROUP BY p.queue, p.start
ORDER BY p.start, p.queue
