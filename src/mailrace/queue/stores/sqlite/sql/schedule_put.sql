-- lock: write; index: schedules.name; guard: one that is there keeps its slots and its age
INSERT INTO schedules (name, cron, zone, catch_up, job, paused, created_ms)
VALUES (:name, :cron, :zone, :catch_up, :job, :paused, :created_ms)
ON CONFLICT (name) DO UPDATE SET
    cron = excluded.cron, zone = excluded.zone, catch_up = excluded.catch_up, job = excluded.job,
    paused = excluded.paused
