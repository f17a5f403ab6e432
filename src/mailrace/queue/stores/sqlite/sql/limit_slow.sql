-- lock: write; index: limits.name; guard: once within the cool-down; a clock set back ends it
UPDATE limits SET pace = max(min(pace, :floor), pace * :factor), slowed_ms = :now_ms
WHERE name = :name AND adaptive AND slowed_ms NOT BETWEEN :now_ms - :cool_down_ms + 1 AND :now_ms
