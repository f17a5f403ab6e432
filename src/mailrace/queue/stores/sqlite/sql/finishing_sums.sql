-- lock: none; index: jobs.id
SELECT j.batch_id, f.state, count(*), count(nullif(f.step, 'release')),
    min(f.at_ms) FILTER (WHERE f.step <> 'release'), max(f.at_ms) FILTER (WHERE f.step <> 'release')
FROM temp.finishing AS f JOIN jobs AS j ON j.id = f.id
GROUP BY 1, 2
