-- lock: write; index: counts(batch_id, state); guard: jobs >= 0
UPDATE counts SET jobs = jobs + :jobs WHERE batch_id = :batch_id AND state = :state
