-- lock: the queues' gates, and the jobs taken, passing over locked ones; index: jobs_ready; guard: state, due, queue not paused, room in the queue and the key, process known
SELECT known, jobs, bounded FROM mailrace.claim_gated(
    %(process_id)s::bigint, %(queues)s::text[], %(tenants)s::text[], %(priorities)s::smallint[],
    %(jobs)s::integer[], %(once)s::text[], coalesce(%(now)s::timestamptz, now())
)
