-- lock: none (a temporary table); guard: of two records of one job the first counts
CREATE TEMP TABLE finishing (
    id INTEGER PRIMARY KEY, lease INTEGER, step TEXT, state TEXT, begun INTEGER, at_ms INTEGER, run_at_ms INTEGER,
    attempt INTEGER, queue TEXT, batch_id INTEGER, key TEXT, gated INTEGER,
    category TEXT, reason TEXT, detail TEXT, result TEXT
)
