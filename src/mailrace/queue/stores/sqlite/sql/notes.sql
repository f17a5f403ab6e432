-- lock: none; index: notes.name
SELECT name, value FROM notes WHERE substr(name, 1, length(:prefix)) = :prefix ORDER BY name
