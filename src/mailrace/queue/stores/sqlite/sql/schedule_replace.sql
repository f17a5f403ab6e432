-- lock: write; index: schedules.name; guard: nobody has given it another job
UPDATE schedules SET job = :job WHERE name = :name AND job = :expected
