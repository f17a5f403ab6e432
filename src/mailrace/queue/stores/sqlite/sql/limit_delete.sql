-- lock: write; index: limits.name
DELETE FROM limits WHERE name = :name AND rates <> ''
