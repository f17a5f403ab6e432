-- lock: none (a temporary table); guard: no job is claimed twice by one call
CREATE TEMP TABLE claiming (
    position INTEGER PRIMARY KEY, id INTEGER, queue TEXT, batch_id INTEGER, state TEXT, gated INTEGER
)
