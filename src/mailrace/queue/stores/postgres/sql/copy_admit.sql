-- lock: batches against sealing, until the transaction ends; index: none (sequence); guard: queue not draining, batch not sealed
-- Counts jobs that are about to be copied in, lets them in, and gives them their numbers.
WITH tallied AS (
    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT n.queue, n.batch_id, 'available', n.jobs, coalesce(%(now)s::timestamptz, now())
    FROM unnest(%(queues)s::text[], %(batch_ids)s::bigint[], %(numbers)s::bigint[])
        AS n (queue, batch_id, jobs)
)
SELECT
    -- As every setting of the session reads it.
    to_char(
        coalesce(%(now)s::timestamptz, now()) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    ),
    ARRAY(SELECT nextval('mailrace.job_ids') FROM generate_series(1, %(jobs)s)),
    mailrace.admit(
        %(queues)s::text[], array_remove(%(batch_ids)s::bigint[], 0::bigint), false
    )
