-- lock: write; index: sequences.name
UPDATE sequences SET value = :value WHERE name = :name
