-- lock: write; index: turns.name; guard: the turn has come, or was set by a clock far ahead
INSERT INTO turns (name, next_ms) VALUES (:name, :now_ms + :every_ms)
ON CONFLICT (name) DO UPDATE SET next_ms = excluded.next_ms
WHERE next_ms NOT BETWEEN :now_ms + 1 AND :now_ms + :every_ms
