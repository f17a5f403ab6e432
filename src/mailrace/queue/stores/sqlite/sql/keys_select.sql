-- lock: none (inside the write of enqueue); index: keys.digest
SELECT digest, job_id FROM keys WHERE digest IN (SELECT value FROM json_each(:digests))
