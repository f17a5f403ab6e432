-- needs: live_jobs, completed_jobs or jobs_ended; gives: the fields of a JobRow, in their order
id, state, kind, queue, tenant, priority, attempt, attempts, deaths, snoozes, key, batch_id,
coalesce(tags, '{}') AS tags, lane, mailrace.unix_ms(created_at) AS created_ms,
mailrace.unix_ms(run_at) AS run_at_ms, mailrace.unix_ms(expires_at) AS expires_ms,
mailrace.unix_ms(ended_at) AS ended_ms, process_id, coalesce(category, '') AS category,
coalesce(reason, '') AS reason, coalesce(detail, '') AS detail
