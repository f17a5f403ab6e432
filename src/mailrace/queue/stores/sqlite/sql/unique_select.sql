-- lock: none (inside the write of enqueue); index: jobs_unique
SELECT unique_digest, id FROM jobs
WHERE unique_digest IN (SELECT value FROM json_each(:digests)) AND unique_digest IS NOT NULL
    AND state IN ('scheduled', 'available', 'running', 'retryable')
