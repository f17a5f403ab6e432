-- lock: write
INSERT INTO processes (journal, expires_ms) VALUES (:journal, :expires_ms) RETURNING id
