-- lock: none; index: throughput(minute, queue, state)
SELECT
    queue, minute,
    coalesce(sum(jobs) FILTER (WHERE state = 'completed'), 0),
    coalesce(sum(jobs) FILTER (WHERE state IN ('failed', 'uncertain')), 0),
    coalesce(sum(jobs) FILTER (WHERE state = 'retryable'), 0)
FROM throughput WHERE minute >= :after GROUP BY 1, 2 ORDER BY 2, 1
