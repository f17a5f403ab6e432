-- lock: write; index: jobs.id; guard: lease, not running
UPDATE jobs SET payload = :payload WHERE id = :id AND lease = :lease AND state <> 'running'
