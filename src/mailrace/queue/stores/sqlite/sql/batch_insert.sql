-- lock: write; index: batches.name; guard: a name that exists is left as it is
INSERT INTO batches (name, kind, spec, created_ms) VALUES (:name, :kind, :spec, :now_ms)
ON CONFLICT (name) DO NOTHING
