-- lock: write; index: notes.name
DELETE FROM notes WHERE name = :name
