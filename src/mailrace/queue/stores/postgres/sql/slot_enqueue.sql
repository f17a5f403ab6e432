-- lock: what an enqueue takes; index: schedules_pkey
SELECT e.job_id
FROM mailrace.schedules AS s
CROSS JOIN LATERAL mailrace.enqueue_many(
    json_build_array(s.job), coalesce(%(now)s::timestamptz, now())
) AS e
WHERE s.name = %(name)s
