-- lock: none (inside the write that chose); index: jobs.id
SELECT j.queue, coalesce(j.batch_id, 0), j.state, count(*)
FROM temp.chosen AS c CROSS JOIN jobs AS j ON j.id = c.id GROUP BY 1, 2, 3
