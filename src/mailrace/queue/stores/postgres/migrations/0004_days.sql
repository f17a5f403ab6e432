-- The past by the day: partitions of the completed jobs are made ahead, and dropped whole. Each of
-- these waits for a lock for a moment only, and does nothing if it does not get it: nobody has to
-- wait behind it, and the next call tries again.
-- oldest code: 1

CREATE FUNCTION mailrace.day_name(day date) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 'jobs_completed_' || to_char(day, 'YYYYMMDD');

CREATE FUNCTION mailrace.day_start(day date) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN day::timestamp AT TIME ZONE 'UTC';

-- Whether the day has a partition now. One whose rows lie in the default partition already gets
-- none: they stay there until they are removed one by one.
CREATE FUNCTION mailrace.add_day(day date) RETURNS boolean
    LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
DECLARE
    first timestamptz := mailrace.day_start(day);
    after timestamptz := mailrace.day_start(day + 1);
    name text := mailrace.day_name(day);
BEGIN
    IF to_regclass('mailrace.' || name) IS NOT NULL THEN
        RETURN true;
    END IF;
    IF EXISTS (
        SELECT FROM mailrace.jobs_completed_rest AS c WHERE c.ended_at >= first AND c.ended_at < after
    ) THEN
        RETURN false;
    END IF;
    -- Made apart and attached, the parent stays open for whoever writes to it meanwhile.
    EXECUTE format('CREATE TABLE mailrace.%I (LIKE mailrace.jobs_completed INCLUDING ALL)', name);
    EXECUTE format(
        'ALTER TABLE mailrace.jobs_completed ATTACH PARTITION mailrace.%I FOR VALUES FROM (%L) TO (%L)',
        name, first, after
    );
    RETURN true;
EXCEPTION
    WHEN lock_not_available OR check_violation OR duplicate_table THEN
        RETURN false;
END $$;

-- Drops a day with its jobs and their attempts; how many jobs there were, or null if somebody
-- uses it. The queues' counts go down; those of a batch tell of all its jobs for ever, so that
-- what was dropped of it is taken off under batch 0.
CREATE FUNCTION mailrace.drop_day(day date, present timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
DECLARE
    name text := mailrace.day_name(day);
    dropped bigint;
BEGIN
    -- No more rows while they are counted: only one that ended so long ago would come here.
    EXECUTE format('LOCK TABLE mailrace.%I IN SHARE MODE', name);
    EXECUTE format(
        'DELETE FROM mailrace.attempts AS a WHERE a.at < $1'
        ' AND EXISTS (SELECT FROM mailrace.%I AS c WHERE c.id = a.job_id)', name
    ) USING mailrace.day_start(day + 1);
    EXECUTE format(
        'WITH sums AS (SELECT c.queue, count(*) AS jobs FROM mailrace.%I AS c GROUP BY c.queue),'
        ' told AS (INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)'
        ' SELECT s.queue, 0, ''completed'', -s.jobs, $1 FROM sums AS s)'
        ' SELECT coalesce(sum(s.jobs), 0)::bigint FROM sums AS s', name
    ) INTO dropped USING present;
    EXECUTE format('DROP TABLE mailrace.%I', name);
    RETURN dropped;
EXCEPTION
    WHEN lock_not_available OR undefined_table THEN
        RETURN NULL;
END $$;

-- Today and the next days, before anybody ends a job: one that is on its way to the default
-- partition while its day gets a partition of its own is refused.
SELECT mailrace.add_day((now() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, 3) AS ahead;
