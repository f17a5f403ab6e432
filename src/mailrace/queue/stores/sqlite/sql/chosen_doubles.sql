-- lock: none (a temporary table); index: jobs.id, jobs_unique
-- Those whose unique key a live job has, or one that was chosen before them.
DELETE FROM temp.chosen WHERE id IN (
    SELECT j.id
    FROM temp.chosen AS c CROSS JOIN jobs AS j ON j.id = c.id
    WHERE j.unique_digest IS NOT NULL AND EXISTS (
        SELECT 1 FROM jobs AS p
        WHERE p.unique_digest = j.unique_digest AND p.unique_digest IS NOT NULL
            AND p.state IN ('scheduled', 'available', 'running', 'retryable')
    )
    UNION ALL
    SELECT id FROM (
        SELECT j.id, row_number() OVER (PARTITION BY j.unique_digest ORDER BY j.id) AS place
        FROM temp.chosen AS c CROSS JOIN jobs AS j ON j.id = c.id
        WHERE j.unique_digest IS NOT NULL
    )
    WHERE place > 1
)
