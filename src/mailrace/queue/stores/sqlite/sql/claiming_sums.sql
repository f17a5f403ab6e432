-- lock: none (a temporary table)
SELECT queue, batch_id, state, count(*) FROM temp.claiming GROUP BY 1, 2, 3
