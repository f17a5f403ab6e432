-- lock: write; index: throughput(minute, queue, state)
DELETE FROM throughput WHERE minute < :before
