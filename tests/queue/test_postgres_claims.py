"""Claims, finishes and rescues on PostgreSQL that meet each other."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

from mailrace.errors import ConflictError
from mailrace.queue.flows import Want
from mailrace.queue.jobs import ClaimedJob, Finished, NewJob
from mailrace.queue.processes import NewProcess, ProcessRow
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.states import JobState, Step
from mailrace.queue.stores.postgres import PostgresStore

WANT = Want("default", "", 0, 10)
WANTED = {
    "queues": ["default"], "tenants": [""], "priorities": [0], "jobs": [10], "since_ms": [None],
    "once": [],
}  # fmt: skip


def job(**fields: Any) -> NewJob:
    return NewJob(kind="kind", payload=msgspec.Raw(b"{}"), **fields)


def completed(jobs: Sequence[ClaimedJob]) -> list[Finished]:
    return [Finished(one.id, one.lease, Step.COMPLETE, JobState.COMPLETED) for one in jobs]


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def process(store: PostgresStore) -> ProcessRow:
    await store.register(NewProcess(journal="journal"), 30.0)
    (row,) = await store.processes()
    return row


async def somebody_waits(dsn: str) -> None:
    async with asyncio.timeout(30), await psycopg.AsyncConnection.connect(dsn) as watcher:
        while not await (
            await watcher.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        ).fetchall():
            await watcher.rollback()  # its view of the activity is the transaction's


async def test_a_postgres_claim_under_way_is_seen_by_the_rescue_of_its_process(
    store: PostgresStore, process: ProcessRow, postgres_dsn: str
) -> None:
    await store.enqueue([job()])
    async with store.work.transaction() as claiming:
        await claiming.rows("claim", process_id=process.id, **WANTED)
        rescuing = asyncio.create_task(store.rescue(process, [], known=True))
        await somebody_waits(postgres_dsn)
    assert await rescuing == 1
    (figures,) = await store.queue_figures()
    assert figures.counts[JobState.AVAILABLE] == 1


async def test_a_postgres_claim_of_a_process_that_is_just_being_rescued_takes_nothing(
    store: PostgresStore, process: ProcessRow, postgres_dsn: str
) -> None:
    await store.enqueue([job()])
    async with store.work.transaction() as rescuing:
        await rescuing.run("process_end", process_id=process.id, expires_ms=process.expires_ms)
        claiming = asyncio.create_task(store.claim(process.id, [WANT]))
        await somebody_waits(postgres_dsn)
    with pytest.raises(ConflictError, match="no longer known"):
        await claiming
    (figures,) = await store.queue_figures()
    assert figures.counts[JobState.AVAILABLE] == 1


async def test_an_idle_postgres_claim_writes_nothing(
    store: PostgresStore, process: ProcessRow, postgres_dsn: str
) -> None:
    """A commit of nothing needs no disk: idle processes ask many times a second."""

    def touched() -> str:
        with psycopg.connect(postgres_dsn) as connection:
            rows = connection.execute("SELECT xmax::text FROM mailrace.processes").fetchall()
        return str(rows[0][0])

    for _ in range(3):
        assert await store.claim(process.id, [WANT]) == []
    assert touched() == "0"
    await store.enqueue([job()])
    assert len(await store.claim(process.id, [WANT])) == 1
    assert touched() != "0"


async def test_two_results_in_postgres_of_one_claim_are_told_apart_by_their_lease(
    store: PostgresStore, process: ProcessRow
) -> None:
    await store.enqueue([job()])
    (first,) = await store.claim(process.id, [WANT])
    await store.finish([Finished(first.id, first.lease, Step.RELEASE, JobState.AVAILABLE)])
    (second,) = await store.claim(process.id, [WANT])
    assert second.lease > first.lease
    assert await store.finish(completed([first])) == 1
    assert await store.finish(completed([first, second])) == 1


async def test_gated_postgres_queues_never_run_too_many_nor_wait_for_each_other_for_ever(
    store: PostgresStore, process: ProcessRow, postgres_dsn: str
) -> None:
    await store.set_queue(QueueRules(name="a", concurrency=4, concurrency_per_key=2))
    await store.set_queue(QueueRules(name="b", concurrency_per_key=1))
    jobs = [
        job(queue="ab"[number % 2], key="xyz"[number % 3] if number % 4 else None)
        for number in range(120)
    ]
    await store.enqueue(jobs)
    running: Counter[tuple[str, str | None]] = Counter()
    done = 0
    most = {"a": 2, "b": 1}

    async def work(own: PostgresStore, order: str) -> None:
        nonlocal done
        while done < len(jobs):
            claimed = await own.claim(process.id, [Want(queue, "", 0, 3) for queue in order])
            running.update((one.queue, one.key) for one in claimed)
            assert sum(count for (queue, _), count in running.items() if queue == "a") <= 4
            for (queue, key), count in running.items():
                assert key is None or count <= most[queue]
            await asyncio.sleep(0)
            running.subtract((one.queue, one.key) for one in claimed)
            assert await own.finish(completed(claimed)) == 0
            done += len(claimed)

    others = [await PostgresStore.open(postgres_dsn) for _ in range(2)]
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(work(own, order) for own in (store, *others) for order in ("ab", "ba"))
        )
    with psycopg.connect(postgres_dsn) as connection:
        assert (
            connection.execute(
                "SELECT queue, key, running FROM mailrace.gates WHERE running <> 0"
            ).fetchall()
            == []
        )
    for own in others:
        await own.close()


async def test_rules_that_are_set_while_postgres_claims_are_followed_from_the_next_one(
    store: PostgresStore, process: ProcessRow
) -> None:
    await store.enqueue([job() for _ in range(10)])
    before = await store.claim(process.id, [Want("default", "", 0, 3)])
    await store.set_queue(QueueRules(name="default", concurrency=2))
    assert await store.claim(process.id, [WANT]) == []
    await store.finish(completed(before))
    assert len(await store.claim(process.id, [WANT])) == 2
    await store.set_queue(QueueRules(name="default"))
    assert len(await store.claim(process.id, [WANT])) == 5
