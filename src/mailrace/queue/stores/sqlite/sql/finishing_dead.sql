-- lock: none (a temporary table)
UPDATE temp.finishing SET reason = 'worker died', category = 'system'
WHERE step = 'die' AND state = 'failed'
