"""What is PostgreSQL's own about tidying up: days, locks, sums that two fold at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from mailrace.errors import ConflictError
from mailrace.queue import JobState, Step, Store
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.limits import LimitRow
from mailrace.queue.queuerules import QueueRules
from tests.queue.houses import (
    PostgresEstate,
    PostgresHouse,
    add,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    new,
    now_ms,
    numbered,
    queue_counts,
)  # fmt: skip

DAY_S = 86_400.0
KEEP = {JobState.COMPLETED: 2 * DAY_S}


@pytest.fixture
async def house(postgres_estate: PostgresEstate) -> AsyncIterator[PostgresHouse]:
    found = postgres_estate.house()
    with psycopg.connect(found.dsn, autocommit=True) as connection:
        for name, _ in days(found)[:-1]:
            connection.execute(f"DROP TABLE mailrace.jobs_completed_{name}".encode())
    yield found
    await found.close()


@pytest.fixture
async def store(house: PostgresHouse) -> Store:
    return await house.opened()


@contextmanager
def somebody(house: PostgresHouse) -> Iterator[psycopg.Connection]:
    """A transaction of somebody else's that stays open."""
    with psycopg.connect(house.dsn) as connection:
        yield connection


def days(house: PostgresHouse) -> list[tuple[str, int]]:
    """The partitions that are named for a day, and how many rows each has."""
    names = house.select(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'mailrace.jobs_completed'::regclass ORDER BY 1"
    )
    return [
        (name.rpartition("_")[2], house.select(f"SELECT count(*) FROM {name}")[0][0])
        for (name,) in names
    ]


async def complete(house: PostgresHouse, store: Store, jobs: int, **fields: object) -> None:
    await add(store, *numbered("k", jobs), **fields)
    taken = await claim_of(
        store, await enter(store), jobs, queue=str(fields.get("queue", "default"))
    )
    await store.finish(ended(taken, at_ms=now_ms(house)))


async def test_days_are_made_ahead(house: PostgresHouse, store: Store) -> None:
    for _ in range(2):
        await store.tidy()
        assert days(house) == [
            ("20270115", 0), ("20270116", 0), ("20270117", 0), ("20270118", 0), ("rest", 0),
        ]  # fmt: skip
    await complete(house, store, 2)
    house.clock.move_to(DAY_S)
    await complete(house, store, 3)
    await store.tidy()
    assert days(house) == [
        ("20270115", 2), ("20270116", 3), ("20270117", 0), ("20270118", 0), ("20270119", 0),
        ("rest", 0),
    ]  # fmt: skip


async def test_a_day_whose_jobs_came_before_its_partition_gets_none(
    house: PostgresHouse, store: Store
) -> None:
    await complete(house, store, 2)
    await store.tidy()
    assert days(house) == [("20270116", 0), ("20270117", 0), ("20270118", 0), ("rest", 2)]


async def test_a_day_is_dropped_when_all_of_it_is_old(house: PostgresHouse, store: Store) -> None:
    await store.tidy()
    await complete(house, store, 3, queue="a")
    await complete(house, store, 4, queue="b")
    house.clock.move_to(DAY_S)
    await complete(house, store, 2, queue="a")
    # Noon is 16 hours before the day is over; what is kept for two days goes two days after that.
    for moment_s, dropped in ((2.6 * DAY_S, 0), (2.7 * DAY_S, 7), (2.8 * DAY_S, 0)):
        house.clock.move_to(moment_s)
        assert await store.retain(KEEP) == dropped
    assert days(house) == [("20270116", 2), ("20270117", 0), ("20270118", 0), ("rest", 0)]
    assert await queue_counts(store, "a") == {JobState.COMPLETED: 2}
    assert await queue_counts(store, "b") == {}


async def test_a_dropped_day_takes_its_attempts_along_and_leaves_the_others(
    house: PostgresHouse, store: Store
) -> None:
    await store.tidy()
    await add(store, "completed", "waiting")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id)
    await store.finish(ended(jobs, Step.RETRY))
    await store.finish(ended(await claim_of(store, process_id, 1)))
    house.clock.move_to(5 * DAY_S)
    assert await store.retain(KEEP) == 1
    assert house.select("SELECT job_id FROM mailrace.attempts") == [(jobs[1].id,)]


async def test_a_batch_tells_of_all_its_jobs_when_they_are_gone(
    house: PostgresHouse, store: Store
) -> None:
    await store.tidy()
    batch_id = await fill(store, 5)
    queue = f"batch:{batch_id}"
    jobs = await claim_of(store, await enter(store), queue=queue)
    await store.finish([*ended(jobs[:3]), *ended(jobs[3:], Step.FAIL)])
    house.clock.move_to(9 * DAY_S)
    assert await store.retain(KEEP | {JobState.FAILED: DAY_S}) == 5
    for _ in range(2):
        assert await counts(store, batch_id) == {JobState.COMPLETED: 3, JobState.FAILED: 2}
        assert await queue_counts(store, queue) == {}
        await store.tidy()


async def test_a_day_that_somebody_reads_stays_and_nobody_waits_behind_it(
    house: PostgresHouse, store: Store
) -> None:
    await store.tidy()
    await complete(house, store, 3)
    house.clock.move_to(9 * DAY_S)
    with somebody(house) as reader:
        reader.execute("SELECT count(*) FROM mailrace.jobs_completed")
        async with asyncio.timeout(20):
            assert await store.retain(KEEP) == 0
            await complete(house, store, 1)  # the lock was given back
            await store.tidy()
        assert await queue_counts(store) == {JobState.COMPLETED: 4}
    assert await store.retain(KEEP) == 3
    assert await queue_counts(store) == {JobState.COMPLETED: 1}


async def test_two_that_fold_at_once_keep_the_sums(house: PostgresHouse, store: Store) -> None:
    stores = [store, *[await house.opened() for _ in range(3)]]
    batch_id = await fill(store, 0)
    for number in range(300):
        await add(store, "x", queue=f"q{number % 3}", batch_id=batch_id, idempotency=None)
    await asyncio.gather(*(mine.tidy() for mine in stores * 3))
    assert house.select("SELECT count(*) FROM mailrace.tallies") == [(0,)]
    assert house.select("SELECT sum(jobs) FROM mailrace.counts") == [(300,)]
    assert house.select("SELECT sum(jobs) FROM mailrace.pace") == [(300,)]
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 300}


async def test_tallies_that_somebody_holds_are_folded_the_next_time(
    house: PostgresHouse, store: Store
) -> None:
    await add(store, "a", queue="held")
    await add(store, "b", queue="free")
    with somebody(house) as holder:
        holder.execute("SELECT FROM mailrace.tallies WHERE queue = 'held' FOR UPDATE")
        async with asyncio.timeout(20):
            await store.tidy()
        assert house.select("SELECT queue FROM mailrace.counts") == [("free",)]
        assert await queue_counts(store, "held") == {JobState.AVAILABLE: 1}
    await store.tidy()
    assert await queue_counts(store, "held") == {JobState.AVAILABLE: 1}
    assert house.select("SELECT queue FROM mailrace.tallies") == []


async def test_the_pace_is_merged_to_minutes_and_then_forgotten(
    house: PostgresHouse, store: Store
) -> None:
    for second in (0.0, 15.0, 45.0, 65.0):
        house.clock.move_to(second)
        await add(store, "x")
        await store.tidy()

    def slices() -> list[tuple[int, int]]:
        rows = house.select(
            "SELECT (date_part('epoch', slice) - 1800000000)::integer, jobs::integer"
            " FROM mailrace.pace ORDER BY 1"
        )
        return [(start_s, jobs) for start_s, jobs in rows]

    assert slices() == [(0, 1), (10, 1), (40, 1), (60, 1)]
    for _ in range(2):
        house.clock.move_to(3600.0 + 61.0)
        await store.tidy()
        assert slices() == [(0, 3), (60, 1)]
    house.clock.move_to(30 * DAY_S + 30.0)
    await store.tidy()
    assert slices() == [(60, 1)]


async def test_a_completion_job_waits_until_its_queue_takes_jobs(
    house: PostgresHouse, store: Store
) -> None:
    for name, queue in (("held", "draining"), ("free", "open")):
        batch = await store.open_batch(name, "kind", b"{}", completion=new("x", queue=queue)[0])
        await store.seal_batch(batch.id)
    await store.set_queue(QueueRules(name="draining", draining=True))
    assert await store.complete_batches() == 1
    assert [batch.completed for batch in await store.batches()] == [True, False]
    await store.set_queue(QueueRules(name="draining"))
    assert await store.complete_batches() == 1
    assert len(await store.find(JobFilter())) == 2


async def test_a_completion_job_that_is_refused_does_not_hold_up_the_others(store: Store) -> None:
    sealed = await store.open_batch("sealed", "kind", b"{}")
    await store.seal_batch(sealed.id)
    for name, batch_id in (("wrong", sealed.id), ("right", None)):
        (job,) = new("x", batch_id=batch_id)
        batch = await store.open_batch(name, "kind", b"{}", completion=job)
        await store.seal_batch(batch.id)
    with pytest.raises(ConflictError, match="sealed"):
        await store.complete_batches()
    assert [batch.completed for batch in await store.batches()] == [True, False, True]
    assert len(await store.find(JobFilter())) == 1


async def test_limits_that_nobody_set_are_forgotten(house: PostgresHouse, store: Store) -> None:
    await store.set_limit(LimitRow(name="set", rates="10/s"))
    for name, rates in (("idle", "10/s"), ("used", "10/s"), ("slow", "1/day")):
        for _ in range(3):
            await store.take_slots(name, LimitRow(name=name, rates=rates), span_s=1.0)
    house.clock.move_to(0.9 * DAY_S)
    await store.take_slots("used", None, span_s=1.0)
    house.clock.move_to(1.1 * DAY_S)
    await store.tidy()
    assert [row.name for row in await store.limits()] == ["set", "slow", "used"]


async def test_a_limit_is_not_stuck_when_the_clock_was_set_back(
    house: PostgresHouse, store: Store
) -> None:
    await store.take_slots("relay", LimitRow(name="relay", rates="10/s"), span_s=1.0)
    house.clock.set_back(30 * DAY_S)
    taken = await store.take_slots("relay", None, span_s=1.0)
    assert taken.first_in_s == pytest.approx(0.0, abs=1e-3)
    house.clock.set_back(60.0)  # so far ahead may be taken by others
    assert (await store.take_slots("relay", None, span_s=1.0)).first_in_s > 59.0


async def test_gates_that_are_wrong_are_made_right(house: PostgresHouse, store: Store) -> None:
    await store.set_queue(QueueRules(name="q", concurrency=3, concurrency_per_key=1))
    await add(store, *numbered("k", 4), queue="q", key="x")
    await add(store, *numbered("k", 4), queue="q", key="y")
    process_id = await enter(store)
    assert len(await claim_of(store, process_id, queue="q")) == 2
    right = house.select("SELECT key, running FROM mailrace.gates ORDER BY key")
    assert right == [("", 2), ("x", 1), ("y", 1)]
    house.select(
        "WITH w AS (UPDATE mailrace.gates SET running = 9 WHERE key <> 'y'), d AS (DELETE FROM"
        " mailrace.gates WHERE key = 'y') INSERT INTO mailrace.gates VALUES ('gone', '', 5),"
        " ('q', 'z', 3) RETURNING 1"
    )
    house.select("UPDATE mailrace.jobs SET gated = false WHERE state = 'running' RETURNING 1")
    await store.tidy()
    assert house.select("SELECT key, running FROM mailrace.gates ORDER BY key") == right
    assert house.select("SELECT count(*) FROM mailrace.jobs WHERE gated") == [(2,)]


async def test_a_job_that_was_let_go_and_does_not_run_lets_the_next_one_go(
    house: PostgresHouse, store: Store
) -> None:
    await store.set_queue(QueueRules(name="q", concurrency_per_key=1))
    await add(store, "ends", "is cancelled", "is put off", queue="q", key="x")
    await add(store, "expires", queue="q", key="x", expires_in_ms=5000)
    await add(store, *numbered("k", 5), queue="q", key="x")
    process_id = await enter(store)
    await store.finish(ended(await claim_of(store, process_id, queue="q")))

    def free() -> list[int]:
        rows = house.select(
            "SELECT id FROM mailrace.jobs WHERE NOT blocked AND state = 'available' ORDER BY id"
        )
        return [job for (job,) in rows]

    (first,) = free()
    assert await store.cancel(JobFilter(ids=(first,))) == 1
    (second,) = free()
    assert await store.reschedule(JobFilter(ids=(second,)), 9_000_000) == 1
    (third,) = free()
    house.clock.move_to(6.0)
    assert await store.expire() == 1
    (fourth,) = free()
    assert len({first, second, third, fourth}) == 4
