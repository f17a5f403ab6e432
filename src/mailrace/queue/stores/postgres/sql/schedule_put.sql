-- lock: row; index: schedules_pkey
INSERT INTO mailrace.schedules (name, cron, zone, catch_up, job, paused, created_at)
VALUES (
    %(name)s, %(cron)s, %(zone)s, %(catch_up)s, %(job)s::json, %(paused)s,
    coalesce(%(now)s::timestamptz, now())
)
ON CONFLICT (name) DO UPDATE SET
    cron = excluded.cron, zone = excluded.zone, catch_up = excluded.catch_up, job = excluded.job,
    paused = excluded.paused
