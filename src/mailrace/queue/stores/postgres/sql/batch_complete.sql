-- lock: row; index: batches_pkey; guard: sealed, and not completed yet
WITH done AS (
    UPDATE mailrace.batches AS b SET completed_at = coalesce(%(now)s::timestamptz, now())
    WHERE b.id = %(batch_id)s AND b.sealed_at IS NOT NULL AND b.completed_at IS NULL
    RETURNING b.completion
)
SELECT CASE
    WHEN d.completion IS NULL THEN 0
    ELSE (
        SELECT count(*) FROM mailrace.enqueue_many(
            json_build_array(d.completion), coalesce(%(now)s::timestamptz, now())
        )
    )
END
FROM done AS d
