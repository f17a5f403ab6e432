-- lock: none (inside the writes of enqueue and claim); index: sequences.name
SELECT value FROM sequences WHERE name = :name
