-- lock: none (a temporary table); guard: no job is chosen twice
CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)
