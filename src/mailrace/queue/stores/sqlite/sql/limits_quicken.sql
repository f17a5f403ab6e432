-- lock: write; index: limits.name; guard: once in the time; a clock set back ends it
UPDATE limits SET pace = min(1.0, pace + :step), quickened_ms = :now_ms
WHERE pace < 1.0 AND max(slowed_ms, quickened_ms) NOT BETWEEN :now_ms - :every_ms + 1 AND :now_ms
