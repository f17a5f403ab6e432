-- lock: write; index: batches.name; guard: not made yet
UPDATE batches SET completion = :job
WHERE name = :name AND completion = :expected AND completed_ms IS NULL
