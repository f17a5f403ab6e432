-- lock: none; index: jobs_ended_state, jobs_ended_batch; guard: the thousand largest groups
SELECT
    e.state, e.queue, e.kind, e.category, e.reason, count(*) AS jobs,
    mailrace.unix_ms(min(e.ended_at)), mailrace.unix_ms(max(e.ended_at))
FROM mailrace.jobs_ended AS e
WHERE %(ended)s::boolean
    AND (%(ids)s::bigint[] IS NULL OR e.id = ANY (%(ids)s))
    AND (%(states)s::mailrace.job_state[] IS NULL OR e.state = ANY (%(states)s))
    AND (%(queue)s::text IS NULL OR e.queue = %(queue)s)
    AND (%(kind)s::text IS NULL OR e.kind = %(kind)s)
    AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
    AND (%(batch_id)s::bigint IS NULL OR e.batch_id = %(batch_id)s)
    AND (%(tag)s::text IS NULL OR %(tag)s = ANY (e.tags))
    AND (%(category)s::text IS NULL OR coalesce(e.category, '') = %(category)s)
    AND (%(reason)s::text IS NULL OR coalesce(e.reason, '') = %(reason)s)
    AND (%(text)s::text IS NULL OR strpos(
        lower(concat_ws(E'\n', e.reason, e.detail, e.payload)), lower(%(text)s)
    ) > 0)
    AND (%(ended_before_ms)s::bigint IS NULL OR e.ended_at < mailrace.moment(%(ended_before_ms)s))
    AND (%(ended_after_ms)s::bigint IS NULL OR e.ended_at >= mailrace.moment(%(ended_after_ms)s))
GROUP BY 1, 2, 3, 4, 5
ORDER BY jobs DESC, 1, 2, 3, 4, 5
LIMIT 1000
