"""What is PostgreSQL's own about looking at jobs: plans, rows in other hands, several at once."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from mailrace.queue import JobState, Store
from mailrace.queue.commands import Action, NewCommand
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.stores.postgres.database import statement
from mailrace.queue.stores.postgres.desk import _values
from tests.queue.houses import (
    PostgresEstate,
    PostgresHouse,
    add,
    claim_of,
    ended,
    enter,
    numbered,
    queue_counts,
)


@pytest.fixture
async def house(postgres_estate: PostgresEstate) -> AsyncIterator[PostgresHouse]:
    found = postgres_estate.house()
    yield found
    await found.close()


@pytest.fixture
async def store(house: PostgresHouse) -> Store:
    return await house.opened()


WAITING = (
    "SELECT FROM pg_locks JOIN pg_database AS d ON d.oid = database"
    " WHERE datname = current_database() AND NOT granted"
)


async def until(seen: Callable[[], bool]) -> None:
    for _ in itertools.count():
        if seen():
            return
        await asyncio.sleep(0)


def plan(house: PostgresHouse, name: str, where: JobFilter, **values: Any) -> str:
    """How the server would do it if there were many jobs."""
    values = _values(where) | {"now": None, "limit": 100, "before_id": None} | values
    with psycopg.connect(house.dsn) as connection:
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        rows = connection.execute(b"EXPLAIN (COSTS off) " + statement(name), values).fetchall()
    return "\n".join(line for (line,) in rows)


def tables(text: str) -> set[str]:
    return set(re.findall(r" on (jobs\w*?)(?:_rest|_\d+)? [jce]", text))


async def test_a_part_that_can_have_no_such_job_is_not_looked_at(
    house: PostgresHouse, store: Store
) -> None:
    for states, expected in (
        ((JobState.FAILED,), {"jobs_ended"}),
        ((JobState.COMPLETED,), {"jobs_completed"}),
        ((JobState.RUNNING, JobState.SCHEDULED), {"jobs"}),
        ((JobState.RUNNING, JobState.EXPIRED), {"jobs", "jobs_ended"}),
        (None, {"jobs", "jobs_completed", "jobs_ended"}),
    ):
        assert tables(plan(house, "find", JobFilter(states=states))) == expected
    assert tables(plan(house, "find", JobFilter(category="data"))) == {"jobs", "jobs_ended"}
    over = JobFilter(ended_before_ms=1)
    assert tables(plan(house, "find", over)) == {"jobs_completed", "jobs_ended"}


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (JobFilter(), r"jobs_pkey on jobs j"),
        (JobFilter(ids=(1, 2)), r"jobs_pkey on jobs j\s+Index Cond: \(id = ANY"),
        (JobFilter(ids=(1, 2)), r"_id_idx on \w+ c\w*\s+Index Cond: \(id = ANY"),
        (JobFilter(states=(JobState.COMPLETED,)), r"Index Scan Backward using \w+_id_idx"),
        (
            JobFilter(queue="q", states=(JobState.COMPLETED,)),
            r"Index Scan Backward using \w+_queue_id_idx on \w+ c\w*\s+Index Cond: \(queue",
        ),
    ],
    ids=["all", "live", "past", "completed", "queue"],
)
async def test_jobs_are_found_by_the_index_made_for_it(
    house: PostgresHouse, store: Store, where: JobFilter, index: str
) -> None:
    text = plan(house, "find", where)
    assert re.search(index, text), text
    assert "Seq Scan" not in text


async def test_a_cancellation_misses_nobody_who_was_just_being_claimed(
    house: PostgresHouse, store: Store
) -> None:
    ids = await add(store, *numbered("k", 5))
    with psycopg.connect(house.dsn) as claiming:
        claiming.execute(
            "UPDATE mailrace.jobs SET state = 'running' WHERE id = ANY (%s)", (ids[:2],)
        )
        cancelling = asyncio.create_task(store.cancel(JobFilter()))
        async with asyncio.timeout(20):
            await until(lambda: len(house.select("SELECT FROM mailrace.jobs_ended")) == 3)
        claiming.commit()
    assert await cancelling == 5
    asked = house.select("SELECT id FROM mailrace.jobs WHERE cancel_requested ORDER BY id")
    assert [job for (job,) in asked] == ids[:2]


async def test_a_cancellation_gives_up_on_jobs_that_somebody_does_not_let_go(
    house: PostgresHouse, store: Store
) -> None:
    ids = await add(store, *numbered("k", 5))
    with psycopg.connect(house.dsn) as holder:
        holder.execute("SELECT FROM mailrace.jobs WHERE id = %s FOR UPDATE", (ids[0],))
        async with asyncio.timeout(30):
            assert await store.cancel(JobFilter()) == 4
    assert await store.cancel(JobFilter()) == 1


async def test_decisions_that_are_taken_at_once_count_every_job_once(
    house: PostgresHouse, store: Store
) -> None:
    stores = [store, await house.opened(), await house.opened()]
    await add(store, *numbered("k", 90))

    async def both(mine: Store) -> list[int]:
        return [await mine.cancel(JobFilter(), limit=40), await mine.revive(JobFilter(), limit=40)]

    answers = await asyncio.gather(*(both(mine) for mine in stores * 2))
    cancelled, revived = (sum(column) for column in zip(*answers, strict=True))
    left = cancelled - revived
    expected = {JobState.CANCELLED: left, JobState.AVAILABLE: 90 - left}
    assert await queue_counts(store) == {state: jobs for state, jobs in expected.items() if jobs}
    assert len(house.everything()) == 90


async def test_the_processes_of_running_jobs_are_told_to_cancel_them(store: Store) -> None:
    mine, other = await enter(store), await enter(store)
    ids = await add(store, *numbered("k", 6))
    jobs = await claim_of(store, mine, 3)
    await claim_of(store, other, 3)
    assert await store.cancel(JobFilter(ids=(ids[0], ids[2], ids[4]))) == 3
    assert await store.cancel(JobFilter(ids=(ids[0], ids[2], ids[4]))) == 0
    assert await store.cancels(mine) == [ids[0], ids[2]]
    assert await store.cancels(other) == [ids[4]]
    await store.finish(ended(jobs))
    assert await store.cancels(mine) == []


async def test_an_order_is_never_seen_before_one_of_a_smaller_number(
    house: PostgresHouse, store: Store
) -> None:
    other = await house.opened()
    with psycopg.connect(house.dsn) as slow:
        slow.execute(statement("commands_lock"))
        slow.execute(
            statement("command_add"),
            {"action": "stop", "target": "all", "argument": None, "expires_in_s": 60, "now": None},
        )
        giving = asyncio.create_task(store.command(NewCommand(action=Action.PAUSE)))
        async with asyncio.timeout(20):
            await until(lambda: house.select(WAITING) != [])
        assert await other.commands(["all"], 0) == []  # reading waits for nobody
        slow.rollback()
    number = await giving
    assert [command.id for command in await other.commands(["all"], 0)] == [number]


async def test_figures_estimate_what_is_beyond_ten_thousand(
    house: PostgresHouse, store: Store
) -> None:
    for number in range(3):
        await add(store, *numbered(f"k{number}", 4000), tenant=f"t{number}")
    await add(store, *numbered("later", 100), delay_ms=1000)
    (figures,) = await store.queue_figures()
    assert figures.due == 12_000
    await store.cancel(JobFilter(tenant="t0"))
    (figures,) = await store.queue_figures()
    assert figures.due == 8000
