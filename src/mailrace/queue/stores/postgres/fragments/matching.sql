-- needs: live_jobs, completed_jobs or jobs_ended; gives: further conditions, those of a JobFilter
-- A condition that is not asked for is planned away.
AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
AND (%(states)s::mailrace.job_state[] IS NULL OR state = ANY (%(states)s))
AND (%(queue)s::text IS NULL OR queue = %(queue)s)
AND (%(kind)s::text IS NULL OR kind = %(kind)s)
AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
AND (%(batch_id)s::bigint IS NULL OR batch_id = %(batch_id)s)
AND (%(tag)s::text IS NULL OR %(tag)s = ANY (tags))
AND (%(category)s::text IS NULL OR coalesce(category, '') = %(category)s)
AND (%(reason)s::text IS NULL OR coalesce(reason, '') = %(reason)s)
AND (%(text)s::text IS NULL OR strpos(
    lower(concat_ws(E'\n', reason, detail, payload)), lower(%(text)s)
) > 0)
AND (%(ended_before_ms)s::bigint IS NULL OR ended_at < mailrace.moment(%(ended_before_ms)s))
AND (%(ended_after_ms)s::bigint IS NULL OR ended_at >= mailrace.moment(%(ended_after_ms)s))
