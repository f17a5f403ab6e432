-- lock: its own new row; index: batches_name_key; guard: no batch of that name
INSERT INTO mailrace.batches (name, kind, spec, completion, created_at)
VALUES (
    %(name)s::text, %(kind)s::text, %(spec)s::json, %(completion)s::json,
    coalesce(%(now)s::timestamptz, now())
)
ON CONFLICT (name) DO NOTHING
