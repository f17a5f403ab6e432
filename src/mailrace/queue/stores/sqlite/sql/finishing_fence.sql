-- lock: none (a temporary table); index: jobs.id; guard: lease and state: whoever lost the lease cannot write
DELETE FROM temp.finishing AS f
WHERE NOT EXISTS (
    SELECT 1 FROM jobs AS j WHERE j.id = f.id AND j.lease = f.lease AND j.state = 'running'
)
