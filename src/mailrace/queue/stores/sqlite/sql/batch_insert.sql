-- lock: write; index: batches.name; guard: a name that exists is left as it is
INSERT INTO batches (name, kind, spec, completion, created_ms)
VALUES (:name, :kind, :spec, :completion, :now_ms)
ON CONFLICT (name) DO NOTHING
