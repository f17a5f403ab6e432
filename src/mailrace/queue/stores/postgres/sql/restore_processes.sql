-- lock: rows; guard: leases that would still hold
-- Nobody holds a lease of the time before: each process is rescued as one that died.
UPDATE mailrace.processes SET expires_at = now() WHERE expires_at > now()
