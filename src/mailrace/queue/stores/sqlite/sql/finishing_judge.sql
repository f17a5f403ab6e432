-- lock: none (a temporary table); index: jobs.id
-- A death too many fails the job; what would run again is cancelled where somebody asked for that.
UPDATE temp.finishing SET
    state = CASE
        WHEN j.cancel_requested THEN 'cancelled'
        WHEN finishing.step = 'die' AND j.deaths + 1 >= :deaths_max THEN 'failed'
        ELSE finishing.state
    END
FROM jobs AS j
WHERE j.id = finishing.id AND finishing.step IN ('retry', 'snooze', 'release', 'die')
