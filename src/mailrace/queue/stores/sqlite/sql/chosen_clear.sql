-- lock: none (a temporary table)
DELETE FROM temp.chosen
