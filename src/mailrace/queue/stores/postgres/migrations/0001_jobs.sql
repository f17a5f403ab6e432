-- Jobs, the processes that hold leases on them, and what holds for all of them.
-- oldest code: 1

CREATE TYPE mailrace.job_state AS ENUM (
    'scheduled', 'available', 'running', 'retryable',
    'completed', 'failed', 'cancelled', 'expired', 'uncertain'
);

CREATE TABLE mailrace.batches (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text        NOT NULL UNIQUE,
    kind         text        NOT NULL,
    spec         json        NOT NULL,
    completion   json,
    created_at   timestamptz NOT NULL,
    sealed_at    timestamptz,
    completed_at timestamptz
);

CREATE INDEX batches_open ON mailrace.batches (id)
    WHERE sealed_at IS NOT NULL AND completed_at IS NULL;

CREATE SEQUENCE mailrace.job_ids;
CREATE SEQUENCE mailrace.leases;

-- Jobs that are not final: small, and hot. A job leaves it when it ends, so that its size is that
-- of the work at hand and not of the past. Payloads beyond about a kilobyte move out of the row,
-- and a claim then does not write them again.
CREATE TABLE mailrace.jobs (
    id               bigint             NOT NULL DEFAULT nextval('mailrace.job_ids') PRIMARY KEY,
    run_at           timestamptz        NOT NULL DEFAULT now(),
    created_at       timestamptz        NOT NULL DEFAULT now(),
    expires_at       timestamptz,
    lease            bigint             NOT NULL DEFAULT 0,
    process_id       bigint,
    batch_id         bigint,
    state            mailrace.job_state NOT NULL DEFAULT 'available',
    priority         smallint           NOT NULL DEFAULT 0 CHECK (priority BETWEEN -9 AND 9),
    attempt          smallint           NOT NULL DEFAULT 0,
    attempts         smallint           CHECK (attempts > 0),
    deaths           smallint           NOT NULL DEFAULT 0,
    snoozes          integer            NOT NULL DEFAULT 0,
    once             boolean            NOT NULL DEFAULT false,
    begun            boolean            NOT NULL DEFAULT false,
    gated            boolean            NOT NULL DEFAULT false,
    blocked          boolean            NOT NULL DEFAULT false,
    cancel_requested boolean            NOT NULL DEFAULT false,
    queue            text               NOT NULL DEFAULT 'default',
    tenant           text               NOT NULL DEFAULT '',
    kind             text               NOT NULL,
    lane             text               CHECK (lane IN ('transactional', 'campaign')),
    key              text,
    unique_digest    uuid,
    tags             text[],
    payload          json               NOT NULL
) WITH (
    fillfactor = 80,
    toast_tuple_target = 1024,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.1
);

-- In claim order within a flow. The states stand here in full, as in every statement that is to
-- use it.
CREATE INDEX jobs_ready ON mailrace.jobs (queue, tenant, priority, run_at, id)
    WHERE state IN ('scheduled', 'available', 'retryable') AND NOT blocked;
CREATE INDEX jobs_running ON mailrace.jobs (process_id) WHERE state = 'running';
CREATE INDEX jobs_cancelling ON mailrace.jobs (process_id)
    WHERE state = 'running' AND cancel_requested;
CREATE INDEX jobs_blocked ON mailrace.jobs (queue, key, run_at) WHERE blocked;
CREATE INDEX jobs_expiring ON mailrace.jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_batch ON mailrace.jobs (batch_id, run_at) WHERE batch_id IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON mailrace.jobs (unique_digest) WHERE unique_digest IS NOT NULL;

-- The past. Completed jobs are many and go by the day; the others are few, and are looked at.
CREATE TABLE mailrace.jobs_completed (
    id         bigint      NOT NULL,
    ended_at   timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    run_at     timestamptz NOT NULL,
    lease      bigint      NOT NULL,
    process_id bigint,
    batch_id   bigint,
    priority   smallint    NOT NULL,
    attempt    smallint    NOT NULL,
    attempts   smallint,
    deaths     smallint    NOT NULL,
    snoozes    integer     NOT NULL,
    queue      text        NOT NULL,
    tenant     text        NOT NULL,
    kind       text        NOT NULL,
    lane       text,
    key        text,
    reason     text        NOT NULL,
    detail     text        NOT NULL,
    tags       text[],
    result     json,
    payload    json        NOT NULL
) PARTITION BY RANGE (ended_at);

CREATE INDEX jobs_completed_id ON mailrace.jobs_completed (id);
CREATE INDEX jobs_completed_queue ON mailrace.jobs_completed (queue, id);

CREATE TABLE mailrace.jobs_completed_rest PARTITION OF mailrace.jobs_completed DEFAULT;

CREATE TABLE mailrace.jobs_ended (
    id            bigint             PRIMARY KEY,
    state         mailrace.job_state NOT NULL
        CHECK (state IN ('failed', 'cancelled', 'expired', 'uncertain')),
    ended_at      timestamptz        NOT NULL,
    created_at    timestamptz        NOT NULL,
    run_at        timestamptz        NOT NULL,
    expires_at    timestamptz,
    lease         bigint             NOT NULL,
    process_id    bigint,
    batch_id      bigint,
    priority      smallint           NOT NULL,
    attempt       smallint           NOT NULL,
    attempts      smallint,
    deaths        smallint           NOT NULL,
    snoozes       integer            NOT NULL,
    queue         text               NOT NULL,
    tenant        text               NOT NULL,
    kind          text               NOT NULL,
    lane          text,
    key           text,
    unique_digest uuid,
    category      text               NOT NULL,
    reason        text               NOT NULL,
    detail        text               NOT NULL,
    tags          text[],
    payload       json               NOT NULL
);

CREATE INDEX jobs_ended_state ON mailrace.jobs_ended (state, ended_at);
CREATE INDEX jobs_ended_batch ON mailrace.jobs_ended (batch_id, state) WHERE batch_id IS NOT NULL;

-- Attempts after which a job was not completed.
CREATE TABLE mailrace.attempts (
    job_id   bigint      NOT NULL,
    lease    bigint      NOT NULL,
    attempt  smallint    NOT NULL,
    at       timestamptz NOT NULL,
    step     text        NOT NULL,
    category text        NOT NULL,
    reason   text        NOT NULL,
    detail   text        NOT NULL,
    PRIMARY KEY (job_id, lease)
);

CREATE INDEX attempts_at ON mailrace.attempts (at);

-- Idempotency keys: the digest of the kind and the key, and the job that was made for it.
CREATE TABLE mailrace.keys (
    digest     uuid        PRIMARY KEY,
    job_id     bigint      NOT NULL,
    batch_id   bigint,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX keys_created ON mailrace.keys (created_at) WHERE batch_id IS NULL;
CREATE INDEX keys_job ON mailrace.keys (job_id);

-- The ledger, as differences: a row is added in the transaction of every step, which never waits
-- for anybody, and folded into the counts and the pace by whoever tidies up. The sum of both is
-- exact at any moment.
CREATE TABLE mailrace.tallies (
    queue    text               NOT NULL,
    batch_id bigint             NOT NULL DEFAULT 0,
    state    mailrace.job_state NOT NULL,
    jobs     bigint             NOT NULL,
    at       timestamptz        NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE mailrace.counts (
    queue    text               NOT NULL,
    batch_id bigint             NOT NULL,
    state    mailrace.job_state NOT NULL,
    jobs     bigint             NOT NULL,
    first_at timestamptz, -- when a job came into the state for the first time
    last_at  timestamptz,
    PRIMARY KEY (queue, batch_id, state)
) WITH (fillfactor = 50);

CREATE INDEX counts_batch ON mailrace.counts (batch_id) WHERE batch_id <> 0;

-- Steps by slices of ten seconds, later of a minute: what came into each state, never less.
CREATE TABLE mailrace.pace (
    queue    text               NOT NULL,
    batch_id bigint             NOT NULL,
    slice    timestamptz        NOT NULL,
    state    mailrace.job_state NOT NULL,
    jobs     bigint             NOT NULL,
    PRIMARY KEY (slice, queue, batch_id, state)
);

CREATE TABLE mailrace.processes (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal      text        NOT NULL,
    expires_at   timestamptz NOT NULL,
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    pid          integer     NOT NULL,
    concurrency  integer     NOT NULL,
    node         text        NOT NULL,
    host         text        NOT NULL,
    version      text        NOT NULL,
    supervisor   text        NOT NULL,
    queues       text[]      NOT NULL,
    vitals       json        NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

CREATE TABLE mailrace.queues (
    name                text             PRIMARY KEY,
    paused              boolean          NOT NULL,
    draining            boolean          NOT NULL,
    concurrency         integer          CHECK (concurrency > 0),
    concurrency_per_key integer          CHECK (concurrency_per_key > 0),
    limits              text[]           NOT NULL,
    ageing_s            double precision NOT NULL
);

-- How many jobs run in a queue (key '') or with a key, where that is bounded.
CREATE TABLE mailrace.gates (
    queue   text    NOT NULL,
    key     text    NOT NULL,
    running integer NOT NULL CHECK (running >= 0),
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50);

CREATE TABLE mailrace.limits (
    name          text             PRIMARY KEY,
    rates         text             NOT NULL,
    margin        double precision NOT NULL,
    adaptive      boolean          NOT NULL,
    pace          double precision NOT NULL,
    interval_s    double precision NOT NULL,
    grace_s       double precision NOT NULL,
    next_slot     timestamptz      NOT NULL,
    slowed_at     timestamptz      NOT NULL,
    quickened_at  timestamptz      NOT NULL,
    used_at       timestamptz      NOT NULL,
    set_by_hand   boolean          NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE mailrace.schedules (
    name       text        PRIMARY KEY,
    cron       text        NOT NULL,
    zone       text        NOT NULL,
    catch_up   text        NOT NULL,
    job        json        NOT NULL,
    paused     boolean     NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE mailrace.schedule_slots (
    name   text        NOT NULL REFERENCES mailrace.schedules ON DELETE CASCADE,
    slot   timestamptz NOT NULL,
    job_id bigint,
    PRIMARY KEY (name, slot)
);

CREATE TABLE mailrace.commands (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action     text        NOT NULL,
    target     text        NOT NULL,
    argument   integer,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE mailrace.answers (
    command_id bigint      NOT NULL REFERENCES mailrace.commands ON DELETE CASCADE,
    by         text        NOT NULL,
    done       boolean     NOT NULL,
    text       text        NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (command_id, by)
);

-- What one process does for all: whose turn it is.
CREATE TABLE mailrace.turns (
    name    text        PRIMARY KEY,
    next_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE mailrace.notes (
    name  text PRIMARY KEY,
    value json NOT NULL
);
