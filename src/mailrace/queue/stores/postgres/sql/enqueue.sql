-- lock: keys in the order of their digests, batches against sealing; index: jobs_unique, keys; guard: queue not draining, batch not sealed
SELECT job_id, created FROM mailrace.enqueue_many(
    %(jobs)s::json, coalesce(%(now)s::timestamptz, now()), false
)
