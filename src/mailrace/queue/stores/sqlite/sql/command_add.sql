-- lock: write
INSERT INTO commands (action, target, argument, created_ms, expires_ms)
VALUES (:action, :target, :argument, :now_ms, :expires_ms) RETURNING id
