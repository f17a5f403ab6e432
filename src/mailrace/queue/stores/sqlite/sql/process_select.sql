-- lock: none
SELECT id, journal, expires_ms FROM processes ORDER BY id
