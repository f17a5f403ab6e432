-- lock: none; index: jobs_ready and those of the columns; guard: copy_admit, in the same transaction
COPY mailrace.jobs (
    id, created_at, run_at, kind, queue, tenant, priority, batch_id, attempts, lane, key, payload
) FROM STDIN WITH (ENCODING 'UTF8')
