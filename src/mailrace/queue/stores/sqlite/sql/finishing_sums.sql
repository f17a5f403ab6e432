-- lock: none; index: jobs.id
-- CROSS JOIN keeps SQLite from going through all jobs to find the few that ended.
SELECT j.batch_id, f.state, count(*), count(nullif(f.step, 'release')),
    min(f.at_ms) FILTER (WHERE f.step <> 'release'), max(f.at_ms) FILTER (WHERE f.step <> 'release')
FROM temp.finishing AS f CROSS JOIN jobs AS j ON j.id = f.id
GROUP BY 1, 2
