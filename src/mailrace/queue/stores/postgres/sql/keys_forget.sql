-- lock: rows (skips locked ones); index: keys_created; guard: of no batch, and older than 30 days
DELETE FROM mailrace.keys
WHERE ctid = ANY (ARRAY(
    SELECT k.ctid FROM mailrace.keys AS k
    WHERE k.batch_id IS NULL
        AND k.created_at < coalesce(%(now)s::timestamptz, now()) - interval '30 days'
    ORDER BY k.created_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
))
