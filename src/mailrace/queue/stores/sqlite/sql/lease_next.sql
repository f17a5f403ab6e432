-- lock: write; index: sequences.name
UPDATE sequences SET value = value + 1 WHERE name = 'lease' RETURNING value
