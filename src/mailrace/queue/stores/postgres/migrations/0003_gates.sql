-- What bounds how many jobs run at a time, in a queue or with one key.
-- oldest code: 1

-- The rows that stand for the concurrency of queues and keys are locked queue by queue, and of a
-- queue the row without a key first: nobody waits for somebody who waits for him. What nothing
-- bounds is not counted.

-- Lets go of the places of gated jobs that ended, given as queues and their keys side by side, and
-- frees as many of the jobs that wait for their keys as may run now.
CREATE FUNCTION mailrace.leave_gates(ended_queues text[], ended_keys text[]) RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    gate record;
    still_running integer;
    freed integer;
BEGIN
    FOR gate IN
        SELECT e.queue, g.key, count(*)::integer AS ended
        FROM unnest(ended_queues, ended_keys) AS e (queue, key)
        CROSS JOIN LATERAL (
            SELECT '' UNION ALL SELECT e.key WHERE e.key IS NOT NULL
        ) AS g (key)
        GROUP BY 1, 2 ORDER BY 1, 2
    LOOP
        UPDATE mailrace.gates AS g SET running = greatest(g.running - gate.ended, 0)
        WHERE g.queue = gate.queue AND g.key = gate.key
        RETURNING g.running INTO still_running;
        CONTINUE WHEN gate.key = '';
        UPDATE mailrace.jobs SET blocked = false
        WHERE id = ANY (ARRAY(
            SELECT j.id FROM mailrace.jobs AS j
            WHERE j.blocked AND j.queue = gate.queue AND j.key = gate.key
            ORDER BY j.run_at, j.id
            LIMIT (
                SELECT greatest(q.concurrency_per_key - coalesce(still_running, 0), 0)
                FROM mailrace.queues AS q WHERE q.name = gate.queue
            )
            FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS freed = ROW_COUNT;
        IF freed > 0 THEN
            PERFORM pg_notify('mailrace', gate.queue);
        END IF;
    END LOOP;
    RETURN 0;
END $$;

-- A claimed job as `ClaimedJob` in Python reads it.
CREATE FUNCTION mailrace.claimed(j mailrace.jobs) RETURNS json
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN json_build_array(
        (j).id, (j).lease, (j).attempt, (j).once, (j).kind, (j).queue, (j).tenant, (j).priority,
        (j).deaths, (j).key, (j).batch_id, (j).attempts, mailrace.unix_ms((j).created_at),
        mailrace.unix_ms((j).expires_at), (j).payload
    );

-- Takes due jobs of queues that bound how many run at a time, in all or with one key.
CREATE FUNCTION mailrace.claim_gated(
    claiming_process bigint, queues text[], tenants text[], priorities smallint[], amounts integer[],
    once_kinds text[], present timestamptz
)
RETURNS TABLE (known boolean, jobs text, bounded text[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    this_lease bigint;
    rules record;
    want record;
    free integer;
    unfilled integer;
    candidates bigint[];
    chosen bigint[];
BEGIN
    SELECT nextval('mailrace.leases') INTO this_lease
    FROM mailrace.processes AS p WHERE p.id = claiming_process FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, NULL::text, '{}'::text[];
        RETURN;
    END IF;
    FOR rules IN
        SELECT w.queue, q.concurrency, q.concurrency_per_key
        FROM (SELECT DISTINCT unnest(queues) AS queue) AS w
        LEFT JOIN mailrace.queues AS q ON q.name = w.queue
        WHERE NOT coalesce(q.paused, false)
        ORDER BY w.queue
    LOOP
        INSERT INTO mailrace.gates AS g (queue, key, running) VALUES (rules.queue, '', 0)
        ON CONFLICT (queue, key) DO NOTHING;
        SELECT rules.concurrency - g.running INTO free FROM mailrace.gates AS g
        WHERE g.queue = rules.queue AND g.key = '' FOR UPDATE;
        FOR want IN
            SELECT w.tenant, w.priority, w.amount
            FROM unnest(queues, tenants, priorities, amounts)
                WITH ORDINALITY AS w (queue, tenant, priority, amount, place)
            WHERE w.queue = rules.queue ORDER BY w.place
        LOOP
            unfilled := least(want.amount, free);
            WHILE unfilled > 0 LOOP
                candidates := ARRAY(
                    SELECT j.id FROM mailrace.jobs AS j
                    WHERE j.state IN ('scheduled', 'available', 'retryable') AND NOT j.blocked
                        AND j.queue = rules.queue AND j.tenant = want.tenant
                        AND j.priority = want.priority AND j.run_at <= present
                    ORDER BY j.run_at, j.id LIMIT unfilled FOR UPDATE SKIP LOCKED
                );
                EXIT WHEN candidates = '{}';
                chosen := mailrace.enter_gates(
                    rules.queue, candidates, rules.concurrency, rules.concurrency_per_key
                );
                WITH taken AS (
                    SELECT j.queue, j.batch_id, j.state, count(*) AS jobs
                    FROM mailrace.jobs AS j WHERE j.id = ANY (chosen) GROUP BY 1, 2, 3
                )
                INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)
                SELECT t.queue, coalesce(t.batch_id, 0), s.state, s.jobs, present
                FROM taken AS t
                CROSS JOIN LATERAL (VALUES (t.state, -t.jobs), ('running', t.jobs)) AS s (state, jobs);
                UPDATE mailrace.jobs AS j SET
                    state = 'running', lease = this_lease, process_id = claiming_process,
                    attempt = least(j.attempt + 1, 32767), begun = false, gated = true,
                    once = coalesce(j.lane = 'campaign', j.kind = ANY (once_kinds))
                WHERE j.id = ANY (chosen);
                unfilled := unfilled - cardinality(chosen);
                free := free - cardinality(chosen);
            END LOOP;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT
        true,
        json_agg(mailrace.claimed(j) ORDER BY w.place, j.run_at, j.id)::text,
        ARRAY(
            SELECT q.name FROM mailrace.queues AS q
            WHERE q.name = ANY (queues)
                AND coalesce(q.concurrency, q.concurrency_per_key) IS NOT NULL
        )
    FROM mailrace.jobs AS j
    JOIN unnest(queues, tenants, priorities) WITH ORDINALITY AS w (queue, tenant, priority, place)
        ON w.queue = j.queue AND w.tenant = j.tenant AND w.priority = j.priority
    WHERE j.state = 'running' AND j.process_id = claiming_process AND j.lease = this_lease;
END $$;

-- Of these jobs, which the caller has locked, takes those in whose keys there is room, and blocks
-- the others until a job with their key ends. The caller holds the row of the queue.
CREATE FUNCTION mailrace.enter_gates(
    gate_queue text, candidates bigint[], in_all integer, per_key integer
)
RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    chosen bigint[];
BEGIN
    IF per_key IS NULL THEN
        chosen := candidates;
    ELSE
        INSERT INTO mailrace.gates AS g (queue, key, running)
        SELECT DISTINCT gate_queue, j.key, 0 FROM mailrace.jobs AS j
        WHERE j.id = ANY (candidates) AND j.key IS NOT NULL
        ON CONFLICT (queue, key) DO NOTHING;
        chosen := ARRAY(
            SELECT r.id FROM (
                SELECT
                    j.id,
                    row_number() OVER (PARTITION BY j.key ORDER BY j.run_at, j.id) + g.running
                        AS place
                FROM mailrace.jobs AS j
                LEFT JOIN mailrace.gates AS g ON g.queue = gate_queue AND g.key = j.key
                WHERE j.id = ANY (candidates)
            ) AS r
            WHERE r.place IS NULL OR r.place <= per_key
        );
        UPDATE mailrace.jobs SET blocked = true
        WHERE id = ANY (candidates) AND id <> ALL (chosen);
    END IF;
    WITH entered AS (
        SELECT k.key, count(*) AS jobs
        FROM mailrace.jobs AS j
        CROSS JOIN LATERAL (VALUES ('', in_all), (j.key, per_key)) AS k (key, most)
        WHERE j.id = ANY (chosen) AND k.key IS NOT NULL AND k.most IS NOT NULL
        GROUP BY 1
    )
    UPDATE mailrace.gates AS g SET running = g.running + e.jobs
    FROM entered AS e WHERE g.queue = gate_queue AND g.key = e.key;
    RETURN chosen;
END $$;
