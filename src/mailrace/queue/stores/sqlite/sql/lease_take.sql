-- lock: write; index: sequences.name
UPDATE sequences SET value = :lease WHERE name = 'lease'
