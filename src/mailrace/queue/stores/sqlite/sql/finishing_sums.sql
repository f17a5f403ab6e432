-- lock: none (a temporary table)
SELECT queue, batch_id, state, count(*), sum(begun),
    min(iif(begun, at_ms, NULL)), max(iif(begun, at_ms, NULL)), max(gated)
FROM temp.finishing GROUP BY 1, 2, 3
