"""What once went wrong on PostgreSQL, and must not again."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from mailrace.queue import JobState, Step
from mailrace.queue.flows import Want
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.states import after
from mailrace.queue.stores.postgres import PostgresStore
from tests.queue.houses import add, claim_of, ended, enter, process_row, queue_counts

SMALLINT_MAX = 32_767
DEEP = "[" * 1100 + "]" * 1100
HALF = r'"\ud800"'


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_dsn)
    yield opened
    await opened.close()


@pytest.fixture
def behind(store: PostgresStore) -> Iterator[psycopg.Connection]:
    with psycopg.connect(store.work.dsn, autocommit=True) as connection:
        yield connection


async def somebody_waits(store: PostgresStore) -> None:
    asked = (
        b"SELECT FROM pg_stat_activity"
        b" WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(30), store.desk.connection() as watcher:
        while not await (await watcher.execute(asked)).fetchall():
            pass


def insert(behind: psycopg.Connection, payload: str, queue: str = "default") -> int:
    """A job whose payload the function that adds jobs would refuse."""
    row = behind.execute(
        "INSERT INTO mailrace.jobs (kind, queue, payload) VALUES ('kind', %s, %s::json)"
        " RETURNING id",
        (queue, payload),
    ).fetchone()
    assert row is not None
    behind.execute(
        "INSERT INTO mailrace.tallies (queue, state, jobs) VALUES (%s, 'available', 1)", (queue,)
    )
    return int(row[0])


def keys(jobs: Sequence[Any]) -> list[bytes]:
    return [bytes(job.payload) for job in jobs]


# A payload that nobody can read


@pytest.mark.parametrize("concurrency", [None, 5])
@pytest.mark.parametrize("payload", [HALF, DEEP])
async def test_a_payload_that_cannot_be_read_fails_its_job_and_no_other_of_the_claim(
    store: PostgresStore, behind: psycopg.Connection, payload: str, concurrency: int | None
) -> None:
    await store.set_queue(QueueRules(name="default", concurrency=concurrency))
    process_id = await enter(store)
    if concurrency:
        assert await claim_of(store, process_id) == []  # it knows of the bound now
    await add(store, "a")
    unreadable = insert(behind, payload)
    await add(store, "b")
    claimed = await claim_of(store, process_id)
    assert keys(claimed) == [b'{"to":"a"}', b'{"to":"b"}']
    assert await store.held(process_id) == [(job.id, job.lease) for job in claimed]
    (row,) = await store.find(JobFilter(states=(JobState.FAILED,)))
    assert (row.id, row.category, row.reason) == (unreadable, "data", "payload")
    assert row.detail
    assert await store.finish(ended(claimed)) == 0
    assert await queue_counts(store) == {JobState.COMPLETED: 2, JobState.FAILED: 1}
    assert behind.execute("SELECT sum(running) FROM mailrace.gates").fetchone() in {(0,), (None,)}


async def test_a_claim_of_nothing_but_a_payload_that_cannot_be_read_is_empty(
    store: PostgresStore, behind: psycopg.Connection
) -> None:
    insert(behind, HALF)
    process_id = await enter(store)
    assert await claim_of(store, process_id) == []
    assert await store.held(process_id) == []
    assert await queue_counts(store) == {JobState.FAILED: 1}


@pytest.mark.parametrize(
    "payload",
    [
        r'"\ud800"', r'"\uDBFFx"', r'"\udc00"', r'{"\udfff": 1}', r'"\ud83d\ud83d"',
        r'"\ude00\ud83d"', r'"\ud83d \ude00"', r'"\ud83d\\\ude00"', r'"\\\ud800"',
        r'"\ud83d\ude00\ude00"', r'["\uD83D\uDE00", "\ud83d"]',
    ],
)  # fmt: skip
async def test_sql_refuses_half_a_character_in_a_payload(
    store: PostgresStore, behind: psycopg.Connection, payload: str
) -> None:
    with pytest.raises(psycopg.Error, match="half a character") as refused:
        behind.execute("SELECT mailrace.enqueue('kind', %s::json)", (payload,))
    assert refused.value.sqlstate == "MR400"


@pytest.mark.parametrize(
    "payload",
    [
        r'"\ud83d\ude00"', r'"\uD83D\uDE00\ud83d\ude00"', r'"\\ud800"', r'"\\uDC00"', r'"\u00d8"',
        r'"\ud7ff\ue000"', r'{"\ud83d\ude00": "\u0000"}', '"ud800"', "null",
    ],
)  # fmt: skip
async def test_sql_takes_whole_characters_in_a_payload_and_what_only_looks_like_half_of_one(
    store: PostgresStore, behind: psycopg.Connection, payload: str
) -> None:
    behind.execute("SELECT mailrace.enqueue('kind', %s::json)", (payload,))
    (job,) = await claim_of(store, await enter(store))
    assert bytes(job.payload).decode() == payload


# Numbers that grow


@pytest.mark.parametrize("last", [Step.COMPLETE, Step.FAIL])
async def test_a_job_is_put_off_any_number_of_times(
    store: PostgresStore, behind: psycopg.Connection, last: Step
) -> None:
    await add(store, "a")
    behind.execute("UPDATE mailrace.jobs SET snoozes = %s", (SMALLINT_MAX,))
    process_id = await enter(store)
    claimed = await claim_of(store, process_id)
    assert await store.finish(ended(claimed, Step.SNOOZE)) == 0
    (row,) = await store.find(JobFilter())
    assert row.snoozes == SMALLINT_MAX + 1
    assert await store.finish(ended(await claim_of(store, process_id), last)) == 0
    (row,) = await store.find(JobFilter())
    assert row.snoozes == SMALLINT_MAX + 1
    assert row.state is after(JobState.RUNNING, last)


@pytest.mark.parametrize("concurrency", [None, 5])
async def test_attempts_and_deaths_stay_at_the_largest_number_there_is(
    store: PostgresStore, behind: psycopg.Connection, concurrency: int | None
) -> None:
    await store.set_queue(QueueRules(name="default", concurrency=concurrency))
    process_id = await enter(store)
    await claim_of(store, process_id)
    await add(store, "a")
    behind.execute("UPDATE mailrace.jobs SET attempt = %s, deaths = %s", (SMALLINT_MAX,) * 2)
    for step in (Step.RETRY, Step.RETRY, Step.DIE):
        (job,) = await claim_of(store, process_id)
        assert (job.attempt, job.deaths) == (SMALLINT_MAX, SMALLINT_MAX)
        assert await store.finish(ended([job], step)) == 0
    (row,) = await store.find(JobFilter())
    assert (row.state, row.deaths) == (JobState.FAILED, SMALLINT_MAX)


# Days


async def test_the_days_are_there_before_anybody_works(
    store: PostgresStore, behind: psycopg.Connection
) -> None:
    await add(store, "a")
    await store.finish(ended(await claim_of(store, await enter(store))))
    assert behind.execute("SELECT count(*) FROM mailrace.jobs_completed").fetchone() == (1,)
    assert behind.execute("SELECT count(*) FROM mailrace.jobs_completed_rest").fetchone() == (0,)
    days = "SELECT to_regclass('mailrace.' || mailrace.day_name(current_date + 3)) IS NOT NULL"
    assert behind.execute(days.encode()).fetchone() == (True,)


@pytest.mark.parametrize("steps", [[Step.COMPLETE], [Step.COMPLETE, Step.FAIL]])
async def test_a_job_that_ends_while_its_day_gets_a_partition_is_written(
    store: PostgresStore, behind: psycopg.Connection, steps: list[Step]
) -> None:
    for (day,) in behind.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'mailrace.jobs_completed'::regclass"
        " AND inhrelid <> 'mailrace.jobs_completed_rest'::regclass"
    ).fetchall():
        behind.execute(f"DROP TABLE {day}".encode())
    await add(store, *"ab")
    jobs = await claim_of(store, await enter(store))
    records = [
        record for job, step in zip(jobs, steps, strict=False) for record in ended([job], step)
    ]
    with psycopg.connect(store.work.dsn) as upkeep:
        for ahead in range(2):  # midnight may be near
            upkeep.execute(
                "SELECT mailrace.add_day((now() AT TIME ZONE 'UTC')::date + %s)", (ahead,)
            )
        finishing = asyncio.create_task(store.finish(records))
        await somebody_waits(store)
    assert await finishing == 0
    assert behind.execute("SELECT count(*) FROM mailrace.jobs_completed").fetchone() == (1,)
    assert behind.execute("SELECT count(*) FROM mailrace.jobs_completed_rest").fetchone() == (0,)


# Leases


async def test_whoever_begins_late_is_told_which_jobs_are_not_its_own_any_more(
    store: PostgresStore,
) -> None:
    old = await enter(store, "old")
    await add(store, *"abc")
    taken = await claim_of(store, old, 2)
    mine = [(job.id, job.lease) for job in taken]
    assert await store.begin(old, mine) == []
    assert await store.begin(old, mine) == []
    await store.finish(ended(taken[:1], Step.RELEASE))
    assert await store.begin(old, mine) == [taken[0].id]
    assert await store.rescue(await process_row(store, old), (), known=True) == 1
    assert await store.begin(old, mine) == [job.id for job in taken]
    new = await enter(store, "new")
    again = await store.claim(new, [Want("default", "", 0, 10)])
    assert await store.begin(old, mine) == [job.id for job in taken]
    assert await store.begin(new, [(job.id, job.lease) for job in again]) == []
