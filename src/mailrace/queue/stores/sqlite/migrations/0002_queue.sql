-- The general queue: queues, tenants, priorities, keys, limits, schedules. What a store of the
-- first version holds is taken over: each batch becomes a queue of its own.

DROP INDEX jobs_key;
DROP INDEX jobs_available;
DROP INDEX jobs_retryable;
DROP INDEX jobs_running;
DROP INDEX jobs_unwell;

ALTER TABLE jobs      RENAME TO old_jobs;
ALTER TABLE counts    RENAME TO old_counts;
ALTER TABLE processes RENAME TO old_processes;
ALTER TABLE limits    RENAME TO old_limits;
ALTER TABLE attempts  RENAME TO old_attempts;

ALTER TABLE batches ADD COLUMN completion TEXT;
ALTER TABLE batches ADD COLUMN sealed_ms INTEGER;
ALTER TABLE batches ADD COLUMN completed_ms INTEGER;

CREATE INDEX batches_open ON batches (id) WHERE sealed_ms IS NOT NULL AND completed_ms IS NULL;

-- Jobs of all states. Partial indexes keep apart what is hot; the columns that steps change and
-- indexes ask for stand first, where they are found without reading on.
CREATE TABLE jobs (
    id               INTEGER PRIMARY KEY,
    state            TEXT    NOT NULL,
    blocked          INTEGER NOT NULL DEFAULT 0,
    gated            INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    once             INTEGER NOT NULL DEFAULT 0,
    run_at_ms        INTEGER NOT NULL,
    lease            INTEGER NOT NULL DEFAULT 0,
    process_id       INTEGER,
    batch_id         INTEGER,
    expires_ms       INTEGER,
    ended_ms         INTEGER,
    unique_digest    TEXT,
    priority         INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -9 AND 9),
    attempt          INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER CHECK (attempts > 0),
    deaths           INTEGER NOT NULL DEFAULT 0,
    snoozes          INTEGER NOT NULL DEFAULT 0,
    created_ms       INTEGER NOT NULL,
    queue            TEXT    NOT NULL,
    tenant           TEXT    NOT NULL DEFAULT '',
    kind             TEXT    NOT NULL,
    lane             TEXT    CHECK (lane IN ('transactional', 'campaign')),
    key              TEXT,
    tags             TEXT,
    category         TEXT    NOT NULL DEFAULT '',
    reason           TEXT    NOT NULL DEFAULT '',
    detail           TEXT    NOT NULL DEFAULT '',
    payload          TEXT    NOT NULL,
    result           TEXT
) STRICT;

-- Attempts after which a job was not completed.
CREATE TABLE attempts (
    job_id   INTEGER NOT NULL,
    lease    INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    step     TEXT    NOT NULL,
    category TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    PRIMARY KEY (job_id, lease)
) STRICT, WITHOUT ROWID;

-- Idempotency keys: the digest of the kind and the key, and the job that was made for it.
CREATE TABLE keys (
    digest     TEXT    PRIMARY KEY,
    job_id     INTEGER NOT NULL,
    batch_id   INTEGER,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_created ON keys (created_ms) WHERE batch_id IS NULL;

-- The ledger: kept in the transaction of every step, so that nobody ever has to count jobs.
-- Batch 0 stands for none.
CREATE TABLE counts (
    queue    TEXT    NOT NULL,
    batch_id INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    jobs     INTEGER NOT NULL CHECK (jobs >= 0),
    PRIMARY KEY (queue, batch_id, state)
) STRICT, WITHOUT ROWID;

CREATE INDEX counts_batch ON counts (batch_id) WHERE batch_id <> 0;

-- Attempts that ended in a queue, by minutes and by the state that they led to.
CREATE TABLE throughput (
    minute INTEGER NOT NULL,
    queue  TEXT    NOT NULL,
    state  TEXT    NOT NULL,
    jobs   INTEGER NOT NULL,
    PRIMARY KEY (minute, queue, state)
) STRICT, WITHOUT ROWID;

-- Grows whenever something may have become due in a queue: what other processes look at.
CREATE TABLE arrivals (
    queue  TEXT    PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE processes (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    journal      TEXT    NOT NULL,
    expires_ms   INTEGER NOT NULL,
    started_ms   INTEGER NOT NULL,
    heartbeat_ms INTEGER NOT NULL,
    pid          INTEGER NOT NULL,
    concurrency  INTEGER NOT NULL,
    node         TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    supervisor   TEXT    NOT NULL,
    queues       TEXT    NOT NULL,
    vitals       TEXT    NOT NULL
) STRICT;

CREATE TABLE queues (
    name                TEXT    PRIMARY KEY,
    paused              INTEGER NOT NULL,
    draining            INTEGER NOT NULL,
    concurrency         INTEGER CHECK (concurrency > 0),
    concurrency_per_key INTEGER CHECK (concurrency_per_key > 0),
    limits              TEXT    NOT NULL,
    ageing_s            REAL    NOT NULL
) STRICT, WITHOUT ROWID;

-- Without rates it is one of the first version, whose rates only its users knew.
CREATE TABLE limits (
    name         TEXT    PRIMARY KEY,
    rates        TEXT    NOT NULL,
    margin       REAL    NOT NULL,
    adaptive     INTEGER NOT NULL,
    pace         REAL    NOT NULL,
    next_slot_ms REAL    NOT NULL,
    taken_ms     REAL    NOT NULL DEFAULT 0,
    slowed_ms    INTEGER NOT NULL DEFAULT 0,
    quickened_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
    name       TEXT    PRIMARY KEY,
    cron       TEXT    NOT NULL,
    zone       TEXT    NOT NULL,
    catch_up   TEXT    NOT NULL,
    job        TEXT    NOT NULL,
    paused     INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE schedule_slots (
    name    TEXT    NOT NULL,
    slot_ms INTEGER NOT NULL,
    job_id  INTEGER,
    PRIMARY KEY (name, slot_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE commands (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    action     TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    argument   INTEGER,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE answers (
    command_id INTEGER NOT NULL,
    by         TEXT    NOT NULL,
    done       INTEGER NOT NULL,
    text       TEXT    NOT NULL,
    at_ms      INTEGER NOT NULL,
    PRIMARY KEY (command_id, by)
) STRICT, WITHOUT ROWID;

-- What one process does for all: whose turn it is.
CREATE TABLE turns (
    name    TEXT    PRIMARY KEY,
    next_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Jobs of the first version were all of the kind that is better sent never than twice.
INSERT INTO jobs (
    id, state, once, run_at_ms, lease, process_id, batch_id, ended_ms, attempt, created_ms,
    queue, kind, lane, reason, detail, payload
)
SELECT
    j.id, j.state, j.state = 'running', coalesce(j.run_at_ms, b.created_ms), j.lease, j.process_id,
    j.batch_id,
    CASE WHEN j.state IN ('completed', 'failed', 'uncertain')
        THEN coalesce(a.at_ms, b.last_ms, b.created_ms) END,
    j.attempt, b.created_ms, 'batch:' || j.batch_id, b.kind, 'campaign',
    CASE WHEN j.state IN ('available', 'running') THEN '' ELSE coalesce(a.reason, '') END,
    CASE WHEN j.state IN ('available', 'running') THEN '' ELSE coalesce(a.detail, '') END,
    p.body
FROM old_jobs AS j
JOIN batches AS b ON b.id = j.batch_id
JOIN payloads AS p ON p.job_id = j.id
LEFT JOIN old_attempts AS a ON a.job_id = j.id AND a.lease = j.lease
ORDER BY j.id;

INSERT INTO keys (digest, job_id, batch_id, created_ms)
SELECT key_digest(b.kind, j.batch_id || ':' || j.key), j.id, j.batch_id, b.created_ms
FROM old_jobs AS j JOIN batches AS b ON b.id = j.batch_id;

INSERT INTO attempts (job_id, lease, attempt, at_ms, step, category, reason, detail)
SELECT job_id, lease, attempt, at_ms, step, '', reason, detail
FROM old_attempts WHERE step <> 'complete';

INSERT INTO counts (queue, batch_id, state, jobs)
SELECT 'batch:' || batch_id, batch_id, state, jobs FROM old_counts;

INSERT INTO processes (
    id, journal, expires_ms, started_ms, heartbeat_ms, pid, concurrency,
    node, host, version, supervisor, queues, vitals
)
SELECT id, journal, expires_ms, 0, 0, 0, 0, '', '', '', '', '[]', '{}' FROM old_processes;

-- No id is given twice, also where the newest was that of a process that is gone.
DELETE FROM sqlite_sequence WHERE name = 'processes';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'processes', seq FROM sqlite_sequence WHERE name = 'old_processes';

INSERT INTO limits (name, rates, margin, adaptive, pace, next_slot_ms)
SELECT name, '', 0.0, 0, 1.0, next_slot_us / 1000.0 FROM old_limits;

INSERT INTO sequences (name, value) SELECT 'job', coalesce(max(id), 0) FROM old_jobs;

INSERT INTO arrivals (queue, number) SELECT 'batch:' || id, 1 FROM batches;

DROP TABLE old_attempts;
DROP TABLE old_counts;
DROP TABLE old_limits;
DROP TABLE old_processes;
DROP TABLE payloads;
DROP TABLE old_jobs;

-- In claim order within a flow. The conditions stand here as in every statement that is to use
-- the index, or SQLite does not see that it may.
CREATE INDEX jobs_ready ON jobs (queue, tenant, priority DESC, run_at_ms)
    WHERE state IN ('scheduled', 'available', 'retryable') AND NOT blocked;
CREATE INDEX jobs_running ON jobs (process_id) WHERE state = 'running';
CREATE INDEX jobs_cancelling ON jobs (process_id) WHERE cancel_requested AND state = 'running';
CREATE INDEX jobs_gated ON jobs (queue, key) WHERE gated AND state = 'running';
CREATE INDEX jobs_blocked ON jobs (queue, key, run_at_ms) WHERE blocked;
CREATE INDEX jobs_expiring ON jobs (expires_ms)
    WHERE expires_ms IS NOT NULL AND state IN ('scheduled', 'available', 'retryable');
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_digest)
    WHERE unique_digest IS NOT NULL
        AND state IN ('scheduled', 'available', 'running', 'retryable');
CREATE INDEX jobs_batch ON jobs (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_later ON jobs (batch_id, run_at_ms)
    WHERE batch_id IS NOT NULL AND state IN ('scheduled', 'retryable');
CREATE INDEX jobs_unwell ON jobs (batch_id, state)
    WHERE batch_id IS NOT NULL AND state IN ('failed', 'uncertain', 'retryable');
CREATE INDEX jobs_ended ON jobs (state, ended_ms)
    WHERE ended_ms IS NOT NULL AND state <> 'completed';
CREATE INDEX jobs_completed ON jobs (queue, ended_ms) WHERE state = 'completed';
