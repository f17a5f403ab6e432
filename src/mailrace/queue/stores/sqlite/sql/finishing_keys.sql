-- lock: none (a temporary table)
SELECT DISTINCT queue, key FROM temp.finishing WHERE gated AND key IS NOT NULL
