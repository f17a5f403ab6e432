-- lock: none; index: jobs_pkey, jobs_batch, jobs_completed_id, jobs_completed_queue, jobs_ended_pkey, jobs_ended_state; guard: each part is cut before they meet
-- A condition that is not asked for is planned away, and so is a part that cannot have any.
(
    SELECT
        j.id, j.state AS state, j.kind, j.queue, j.tenant, j.priority, j.attempt, j.attempts,
        j.deaths, j.snoozes, j.key, j.batch_id, coalesce(j.tags, '{}') AS tags, j.lane,
        mailrace.unix_ms(j.created_at) AS created_ms, mailrace.unix_ms(j.run_at) AS run_at_ms,
        mailrace.unix_ms(j.expires_at) AS expires_ms, NULL::bigint AS ended_ms, j.process_id,
        coalesce(a.category, '') AS category, coalesce(a.reason, '') AS reason,
        coalesce(a.detail, '') AS detail
    FROM mailrace.jobs AS j
    LEFT JOIN LATERAL (
        SELECT l.category, l.reason, l.detail FROM mailrace.attempts AS l
        WHERE l.job_id = j.id ORDER BY l.lease DESC LIMIT 1
    ) AS a ON true
    WHERE %(live)s::boolean
        AND (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s))
        AND (%(states)s::mailrace.job_state[] IS NULL OR j.state = ANY (%(states)s))
        AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
        AND (%(kind)s::text IS NULL OR j.kind = %(kind)s)
        AND (%(tenant)s::text IS NULL OR j.tenant = %(tenant)s)
        AND (%(batch_id)s::bigint IS NULL OR j.batch_id = %(batch_id)s)
        AND (%(tag)s::text IS NULL OR %(tag)s = ANY (j.tags))
        AND (%(category)s::text IS NULL OR coalesce(a.category, '') = %(category)s)
        AND (%(reason)s::text IS NULL OR coalesce(a.reason, '') = %(reason)s)
        AND (%(text)s::text IS NULL OR strpos(
            lower(concat_ws(E'\n', a.reason, a.detail, j.payload)), lower(%(text)s)
        ) > 0)
        AND (%(before_id)s::bigint IS NULL OR j.id < %(before_id)s)
    ORDER BY j.id DESC LIMIT %(limit)s
)
UNION ALL
(
    SELECT
        c.id, 'completed'::mailrace.job_state AS state, c.kind, c.queue, c.tenant, c.priority, c.attempt, c.attempts,
        c.deaths, c.snoozes, c.key, c.batch_id, coalesce(c.tags, '{}') AS tags, c.lane,
        mailrace.unix_ms(c.created_at) AS created_ms, mailrace.unix_ms(c.run_at) AS run_at_ms,
        NULL::bigint AS expires_ms, mailrace.unix_ms(c.ended_at) AS ended_ms, c.process_id,
        '' AS category, c.reason, c.detail
    FROM mailrace.jobs_completed AS c
    WHERE %(completed)s::boolean
        AND (%(ids)s::bigint[] IS NULL OR c.id = ANY (%(ids)s))
        AND (%(queue)s::text IS NULL OR c.queue = %(queue)s)
        AND (%(kind)s::text IS NULL OR c.kind = %(kind)s)
        AND (%(tenant)s::text IS NULL OR c.tenant = %(tenant)s)
        AND (%(batch_id)s::bigint IS NULL OR c.batch_id = %(batch_id)s)
        AND (%(tag)s::text IS NULL OR %(tag)s = ANY (c.tags))
        AND (%(reason)s::text IS NULL OR coalesce(c.reason, '') = %(reason)s)
        AND (%(text)s::text IS NULL OR strpos(
            lower(concat_ws(E'\n', c.reason, c.detail, c.payload)), lower(%(text)s)
        ) > 0)
        AND (%(ended_before_ms)s::bigint IS NULL OR c.ended_at < mailrace.moment(%(ended_before_ms)s))
        AND (%(ended_after_ms)s::bigint IS NULL OR c.ended_at >= mailrace.moment(%(ended_after_ms)s))
        AND (%(before_id)s::bigint IS NULL OR c.id < %(before_id)s)
    ORDER BY c.id DESC LIMIT %(limit)s
)
UNION ALL
(
    SELECT
        e.id, e.state AS state, e.kind, e.queue, e.tenant, e.priority, e.attempt, e.attempts,
        e.deaths, e.snoozes, e.key, e.batch_id, coalesce(e.tags, '{}') AS tags, e.lane,
        mailrace.unix_ms(e.created_at) AS created_ms, mailrace.unix_ms(e.run_at) AS run_at_ms,
        mailrace.unix_ms(e.expires_at) AS expires_ms, mailrace.unix_ms(e.ended_at) AS ended_ms, e.process_id,
        e.category, e.reason, e.detail
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
        AND (%(before_id)s::bigint IS NULL OR e.id < %(before_id)s)
    ORDER BY e.id DESC LIMIT %(limit)s
)
ORDER BY id DESC LIMIT %(limit)s
