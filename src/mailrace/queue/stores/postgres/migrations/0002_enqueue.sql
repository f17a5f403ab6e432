-- What has to be one piece of code whoever calls it: our processes, a program in its own
-- transaction, or somebody with psql. They refuse with SQLSTATE MR400 (the call is wrong) or MR409
-- (somebody decided otherwise).
-- oldest code: 1

CREATE FUNCTION mailrace.unix_ms(moment timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (date_part('epoch', moment) * 1000)::bigint;

CREATE FUNCTION mailrace.moment(unix_ms bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_timestamp(unix_ms / 1000.0::double precision);

CREATE FUNCTION mailrace.milliseconds(number bigint) RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN number * interval '1 millisecond';

CREATE FUNCTION mailrace.key_digest(kind text, key text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN md5(kind || E'\n' || key)::uuid;

-- Ends the call with an error; it returns text only to stand within an expression.
CREATE FUNCTION mailrace.refuse(problem text, hint text) RETURNS text
    LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION '%', problem USING ERRCODE = 'MR400', HINT = hint;
END $$;

-- Whether a JSON text names half a character: a surrogate whose other half does not follow. The
-- type json holds that, and no program can read it. Escaped backslashes are no part of an escape.
CREATE FUNCTION mailrace.has_half_character(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (strpos(value, '\ud') > 0 OR strpos(value, '\uD') > 0) AND regexp_replace(
        replace(value, '\\', '  '),
        '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', ' ', 'g'
    ) ~ '\\u[dD][89a-fA-F]';

-- Jobs as they are written in JSON, checked, with what they leave out filled in.
CREATE FUNCTION mailrace.parsed_jobs(jobs json, present timestamptz)
RETURNS TABLE (
    run_at timestamptz, expires_at timestamptz, batch_id bigint, priority smallint,
    attempts smallint, queue text, tenant text, kind text, lane text, key text,
    unique_digest uuid, known_digest uuid, tags text[], payload json
)
LANGUAGE sql STABLE AS $$
    SELECT
        CASE
            WHEN j.run_at_ms IS NOT NULL THEN mailrace.moment(j.run_at_ms)
            WHEN j.delay_ms IS NOT NULL THEN present + mailrace.milliseconds(j.delay_ms)
            ELSE present
        END,
        CASE
            WHEN j.expires_at_ms IS NOT NULL THEN mailrace.moment(j.expires_at_ms)
            WHEN j.expires_in_ms IS NOT NULL THEN present + mailrace.milliseconds(j.expires_in_ms)
        END,
        j.batch_id,
        CASE
            WHEN j.priority IS NULL THEN 0
            WHEN j.priority BETWEEN -9 AND 9 THEN j.priority
            ELSE mailrace.refuse('priority is ' || j.priority, 'give a number from -9 to 9')::bigint
        END::smallint,
        CASE
            WHEN j.attempts IS NULL OR j.attempts BETWEEN 1 AND 32767 THEN j.attempts
            ELSE mailrace.refuse(
                'attempts is ' || j.attempts, 'give a number from 1 to 32767, or none'
            )::bigint
        END::smallint,
        coalesce(j.queue, 'default'),
        coalesce(j.tenant, ''),
        CASE
            WHEN j.kind <> '' THEN j.kind
            ELSE mailrace.refuse('a job has no kind', 'name the handler that it is for')
        END,
        CASE
            WHEN j.lane IS NULL OR j.lane IN ('transactional', 'campaign') THEN j.lane
            ELSE mailrace.refuse(
                'lane is ' || quote_literal(j.lane), 'give transactional or campaign, or none'
            )
        END,
        nullif(j.key, ''),
        mailrace.key_digest(j.kind, j."unique"),
        mailrace.key_digest(j.kind, j.idempotency),
        nullif(j.tags, '{}'),
        -- A payload of JSON's null arrives as SQL's. One with "\u0000" in it, which this way of
        -- reading refuses, comes as the text of its JSON.
        CASE
            WHEN mailrace.has_half_character(j.payload_text) THEN mailrace.refuse(
                'a payload has half a character in it', 'write both surrogates, \ud83d\ude00'
            )::json
            ELSE coalesce(j.payload_text::json, j.payload, 'null')
        END
    FROM json_to_recordset(jobs) AS j (
        kind text, payload json, payload_text text, queue text, tenant text, priority bigint,
        run_at_ms bigint, delay_ms bigint, expires_at_ms bigint, expires_in_ms bigint,
        "unique" text, idempotency text, key text, batch_id bigint, tags text[], attempts bigint, lane text
    )
$$;

-- Lets new jobs into these queues and batches, or refuses all. The batches are locked until the
-- end of the transaction, so that sealing one waits for those who add to it.
CREATE FUNCTION mailrace.admit(queues text[], batch_ids bigint[], notify boolean) RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    refused text;
    open_ids bigint[];
BEGIN
    SELECT q.name INTO refused FROM mailrace.queues AS q
    WHERE q.name = ANY (queues) AND q.draining ORDER BY q.name LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the queue % is draining: it takes no new jobs', quote_literal(refused)
            USING ERRCODE = 'MR409', HINT = 'enqueue into another queue, or end the draining';
    END IF;
    IF batch_ids <> '{}' THEN
        open_ids := ARRAY(
            SELECT b.id FROM mailrace.batches AS b
            WHERE b.id = ANY (batch_ids) AND b.sealed_at IS NULL ORDER BY b.id FOR SHARE
        );
        SELECT wanted INTO refused FROM unnest(batch_ids) AS wanted
        WHERE wanted <> ALL (open_ids) ORDER BY wanted LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the batch % is sealed or not known: it takes no new jobs', refused
                USING ERRCODE = 'MR409', HINT = 'open a batch of another name';
        END IF;
    END IF;
    IF notify THEN
        PERFORM pg_notify('mailrace', name) FROM unnest(queues) AS name;
    END IF;
    RETURN 0;
END $$;

CREATE FUNCTION mailrace.enqueue_plain(
    jobs json, present timestamptz DEFAULT now(), notify boolean DEFAULT true
)
RETURNS TABLE (job_id bigint, created boolean)
LANGUAGE sql AS $$
    WITH added AS (
        INSERT INTO mailrace.jobs (
            run_at, created_at, expires_at, batch_id, state, priority, attempts, queue, tenant,
            kind, lane, key, tags, payload
        )
        SELECT
            j.run_at, present, j.expires_at, j.batch_id,
            CASE WHEN j.run_at > present THEN 'scheduled' ELSE 'available' END::mailrace.job_state,
            j.priority, j.attempts, j.queue, j.tenant, j.kind, j.lane, j.key, j.tags, j.payload
        FROM mailrace.parsed_jobs(jobs, present) AS j
        RETURNING id, queue, batch_id, state
    ),
    told AS (
        INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
        SELECT a.queue, coalesce(a.batch_id, 0), a.state, count(*), present
        FROM added AS a GROUP BY 1, 2, 3
        RETURNING queue, batch_id
    ),
    admitted AS MATERIALIZED (
        SELECT mailrace.admit(
            array_agg(DISTINCT t.queue),
            coalesce(array_agg(DISTINCT t.batch_id) FILTER (WHERE t.batch_id <> 0), '{}'),
            notify
        ) AS zero
        FROM told AS t
    )
    -- What is added to nothing here has the check be made.
    SELECT a.id + (SELECT zero FROM admitted), true FROM added AS a ORDER BY a.id
$$;

CREATE TYPE mailrace.keyed_job AS (
    id bigint, run_at timestamptz, expires_at timestamptz, batch_id bigint, priority smallint,
    attempts smallint, queue text, tenant text, kind text, lane text, key text,
    unique_digest uuid, known_digest uuid, tags text[], payload json
);

-- Keys are taken in the order of their digests, so that two calls never wait for each other. A
-- round leaves open what has to be looked at again: the job that had the unique key ended just now,
-- or the job that was to stand for an idempotency key was not added.
CREATE FUNCTION mailrace.enqueue_keyed(
    jobs json, present timestamptz DEFAULT now(), notify boolean DEFAULT true
)
RETURNS TABLE (job_id bigint, created boolean)
-- Plans are made for the arrays at hand: one for any arrays walks them in nested loops.
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    asked mailrace.keyed_job[];
    pending mailrace.keyed_job[];
    wanted mailrace.keyed_job[];
    added bigint[] := '{}';
    more bigint[];
    settled bigint[] := '{}';
    answers bigint[] := '{}';
    more_settled bigint[];
    more_answers bigint[];
    rounds integer := 0;
BEGIN
    asked := ARRAY(
        SELECT ROW(nextval('mailrace.job_ids'), p.*)::mailrace.keyed_job
        FROM mailrace.parsed_jobs(jobs, present) AS p
    );
    PERFORM mailrace.admit(
        array_agg(DISTINCT a.queue),
        coalesce(array_agg(DISTINCT a.batch_id) FILTER (WHERE a.batch_id IS NOT NULL), '{}'),
        false
    )
    FROM unnest(asked) AS a;
    pending := asked;
    WHILE cardinality(pending) > 0 LOOP
        -- Whoever else is about to add the same key is waited for here.
        INSERT INTO mailrace.keys (digest, job_id, batch_id, created_at)
        SELECT DISTINCT ON (p.known_digest) p.known_digest, p.id, p.batch_id, present
        FROM unnest(pending) AS p WHERE p.known_digest IS NOT NULL
        ORDER BY p.known_digest, p.id
        ON CONFLICT (digest) DO NOTHING;
        wanted := ARRAY(
            SELECT p FROM unnest(pending) AS p
            LEFT JOIN mailrace.keys AS k ON k.digest = p.known_digest
            WHERE p.known_digest IS NULL OR k.job_id = p.id
        );
        WITH fresh AS (
            INSERT INTO mailrace.jobs (
                id, run_at, created_at, expires_at, batch_id, state, priority, attempts, queue,
                tenant, kind, lane, key, unique_digest, tags, payload
            )
            SELECT
                w.id, w.run_at, present, w.expires_at, w.batch_id,
                CASE
                    WHEN w.run_at > present THEN 'scheduled' ELSE 'available'
                END::mailrace.job_state,
                w.priority, w.attempts, w.queue, w.tenant, w.kind, w.lane, w.key, w.unique_digest,
                w.tags, w.payload
            FROM unnest(wanted) AS w ORDER BY w.unique_digest, w.id
            ON CONFLICT (unique_digest) WHERE unique_digest IS NOT NULL DO NOTHING
            RETURNING id
        )
        SELECT coalesce(array_agg(f.id), '{}') INTO more FROM fresh AS f;
        added := added || more;
        DELETE FROM mailrace.keys AS k USING unnest(wanted) AS w
        WHERE k.digest = w.known_digest AND k.job_id = w.id AND w.id <> ALL (added);
        SELECT coalesce(array_agg(f.id), '{}'), coalesce(array_agg(f.answer), '{}')
        INTO more_settled, more_answers
        FROM (
            SELECT p.id, coalesce(n.id, k.job_id, j.id) AS answer
            FROM unnest(pending) AS p
            LEFT JOIN unnest(more) AS n (id) ON n.id = p.id
            LEFT JOIN mailrace.keys AS k ON k.digest = p.known_digest
            -- Only for those who came as far as the unique key in this round.
            LEFT JOIN unnest(wanted) AS w ON w.id = p.id
            LEFT JOIN mailrace.jobs AS j ON j.unique_digest = w.unique_digest
        ) AS f
        WHERE f.answer IS NOT NULL;
        settled := settled || more_settled;
        answers := answers || more_answers;
        pending := ARRAY(SELECT p FROM unnest(pending) AS p WHERE p.id <> ALL (settled));
        rounds := rounds + 1;
        IF rounds > 100 THEN
            RAISE EXCEPTION 'other jobs with the same keys come and go all the time'
                USING ERRCODE = 'serialization_failure';
        END IF;
    END LOOP;

    INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
    SELECT
        a.queue, coalesce(a.batch_id, 0),
        CASE WHEN a.run_at > present THEN 'scheduled' ELSE 'available' END::mailrace.job_state,
        count(*), present
    FROM unnest(asked) AS a WHERE a.id = ANY (added) GROUP BY 1, 2, 3;
    IF notify THEN
        PERFORM pg_notify('mailrace', q.queue)
        FROM (SELECT DISTINCT a.queue FROM unnest(asked) AS a WHERE a.id = ANY (added)) AS q;
    END IF;
    RETURN QUERY
    SELECT s.answer, s.answer = s.id FROM unnest(settled, answers) AS s (id, answer) ORDER BY s.id;
END $$;

-- Adds jobs, all or none, and answers in their order. The fields of each are
-- those of `NewJob` in Python; all but the kind may be missing.
CREATE FUNCTION mailrace.enqueue_many(
    jobs json, present timestamptz DEFAULT now(), notify boolean DEFAULT true
)
RETURNS TABLE (job_id bigint, created boolean)
LANGUAGE plpgsql AS $$
BEGIN
    IF json_typeof(jobs) IS DISTINCT FROM 'array' THEN
        PERFORM mailrace.refuse('jobs is not a JSON array', 'give [{"kind": "welcome"}]');
    END IF;
    IF EXISTS (
        SELECT FROM json_to_recordset(jobs) AS j ("unique" text, idempotency text)
        WHERE coalesce(j."unique", j.idempotency) IS NOT NULL
    ) THEN
        RETURN QUERY SELECT * FROM mailrace.enqueue_keyed(jobs, present, notify);
    ELSE
        RETURN QUERY SELECT * FROM mailrace.enqueue_plain(jobs, present, notify);
    END IF;
END $$;

-- Adds one job: SELECT * FROM mailrace.enqueue('welcome', '{"to": "ann@example.com"}').
CREATE FUNCTION mailrace.enqueue(
    kind text,
    payload json DEFAULT '{}',
    queue text DEFAULT 'default',
    tenant text DEFAULT '',
    priority integer DEFAULT 0,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    expires_in interval DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL,
    unique_key text DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    key text DEFAULT NULL,
    batch_id bigint DEFAULT NULL,
    tags text[] DEFAULT NULL,
    attempts integer DEFAULT NULL,
    lane text DEFAULT NULL,
    notify boolean DEFAULT true
)
RETURNS TABLE (job_id bigint, created boolean)
LANGUAGE sql AS $$
    SELECT * FROM mailrace.enqueue_many(
        json_build_array(json_build_object(
            'kind', kind, 'payload_text', payload::text, 'queue', queue, 'tenant', tenant,
            'priority', priority,
            'delay_ms', (date_part('epoch', delay) * 1000)::bigint,
            'run_at_ms', mailrace.unix_ms(run_at),
            'expires_in_ms', (date_part('epoch', expires_in) * 1000)::bigint,
            'expires_at_ms', mailrace.unix_ms(expires_at),
            'unique', unique_key, 'idempotency', idempotency_key, 'key', key,
            'batch_id', batch_id, 'tags', tags, 'attempts', attempts, 'lane', lane
        )),
        notify => notify
    )
$$;
