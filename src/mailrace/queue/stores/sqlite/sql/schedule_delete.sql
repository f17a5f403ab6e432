-- lock: write; index: schedules.name
DELETE FROM schedules WHERE name = :name
