-- lock: write
DELETE FROM commands WHERE expires_ms < :before_ms
