-- Batches, their jobs, and the processes that hold leases on them.

CREATE TABLE batches (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    kind       TEXT    NOT NULL,
    spec       TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    first_ms   INTEGER,
    last_ms    INTEGER
) STRICT;

-- The ledger: kept in the transaction of every step, so that nobody ever has to count jobs.
CREATE TABLE counts (
    batch_id INTEGER NOT NULL REFERENCES batches,
    state    TEXT    NOT NULL,
    jobs     INTEGER NOT NULL CHECK (jobs >= 0),
    PRIMARY KEY (batch_id, state)
) STRICT, WITHOUT ROWID;

-- Attempts that ended, by slices of ten seconds, for the rate.
CREATE TABLE pace (
    batch_id INTEGER NOT NULL REFERENCES batches,
    slice    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (batch_id, slice)
) STRICT, WITHOUT ROWID;

CREATE TABLE processes (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    journal    TEXT    NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY,
    batch_id   INTEGER NOT NULL REFERENCES batches,
    key        TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    attempt    INTEGER NOT NULL DEFAULT 0,
    lease      INTEGER NOT NULL DEFAULT 0,
    process_id INTEGER,
    run_at_ms  INTEGER
) STRICT;

CREATE UNIQUE INDEX jobs_key       ON jobs (batch_id, key);
CREATE INDEX        jobs_available ON jobs (batch_id, id)            WHERE state = 'available';
CREATE INDEX        jobs_retryable ON jobs (batch_id, run_at_ms)     WHERE state = 'retryable';
CREATE INDEX        jobs_running   ON jobs (process_id, lease)       WHERE state = 'running';
CREATE INDEX        jobs_unwell    ON jobs (batch_id, state)
    WHERE state IN ('failed', 'uncertain', 'retryable');

CREATE TABLE payloads (
    job_id INTEGER PRIMARY KEY REFERENCES jobs,
    body   TEXT NOT NULL
) STRICT;

CREATE TABLE attempts (
    job_id  INTEGER NOT NULL REFERENCES jobs,
    lease   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    step    TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    PRIMARY KEY (job_id, lease)
) STRICT, WITHOUT ROWID;

CREATE TABLE sequences (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO sequences VALUES ('lease', 0);

-- The next free slot of every limit that processes share, Unix time in microseconds.
CREATE TABLE limits (
    name         TEXT    PRIMARY KEY,
    next_slot_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
