"""Wake-ups of the PostgreSQL store: heard, counted together, found again, or switched off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import msgspec
import psycopg
import pytest

from mailrace.clock import SystemClock
from mailrace.queue.jobs import NewJob
from mailrace.queue.stores.postgres import PostgresStore, wakeups
from mailrace.queue.stores.postgres.migrate import migrate
from mailrace.queue.stores.postgres.notifier import PAUSE_S, Notifier
from mailrace.queue.stores.postgres.wakeups import Listener
from tests.support.clock import VirtualClock, settle
from tests.support.pgbouncer import PgBouncer, available
from tests.support.postgres import PostgresServer

PATIENCE_S = 30.0


def job(queue: str = "default") -> NewJob:
    return NewJob(kind="kind", payload=msgspec.Raw(b"{}"), queue=queue)


def next_wakeup(store: PostgresStore, queue: str = "default") -> asyncio.Future[None]:
    return asyncio.ensure_future(anext(store.wakeups([queue])))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - it is the server that changes it
            await asyncio.sleep(0.005)


async def heard(store: PostgresStore) -> None:
    await until(lambda: store.listening)


@pytest.fixture
async def open_store(postgres_dsn: str) -> AsyncIterator[Callable[[str], Awaitable[PostgresStore]]]:
    migrate(postgres_dsn)
    opened: list[PostgresStore] = []

    async def open_one(options: str = "") -> PostgresStore:
        opened.append(await PostgresStore.open(postgres_dsn + options))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


Open = Callable[..., Awaitable[PostgresStore]]


async def test_a_postgres_store_hears_of_jobs_that_another_enqueued(open_store: Open) -> None:
    waiting, enqueuing = await open_store(), await open_store()
    wakeup = next_wakeup(waiting)
    await heard(waiting)
    await asyncio.wait_for(wakeup, PATIENCE_S)  # when listening begins, in case something came
    wakeup = next_wakeup(waiting)
    await settle()
    await enqueuing.enqueue([job()])
    await asyncio.wait_for(wakeup, PATIENCE_S)


async def test_a_postgres_store_hears_of_jobs_that_plain_sql_enqueued(
    open_store: Open, postgres_dsn: str
) -> None:
    store = await open_store()
    wakeup = next_wakeup(store, "*")
    await heard(store)
    await asyncio.wait_for(wakeup, PATIENCE_S)
    wakeup = next_wakeup(store, "mail")
    await settle()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("SELECT mailrace.enqueue('kind', queue => 'mail')")
    await asyncio.wait_for(wakeup, PATIENCE_S)


async def test_with_listen_off_a_postgres_store_still_wakes_its_own_process(
    open_store: Open,
) -> None:
    store = await open_store("?listen=off")
    assert store.connections == 4
    wakeup = next_wakeup(store)
    await settle()
    await store.enqueue([job()])
    await asyncio.wait_for(wakeup, PATIENCE_S)
    assert not store.listening


async def test_a_postgres_listener_whose_connection_is_cut_listens_again(
    open_store: Open, postgres_dsn: str
) -> None:
    store = await open_store()
    wakeup = next_wakeup(store)
    await heard(store)
    await asyncio.wait_for(wakeup, PATIENCE_S)
    wakeup = next_wakeup(store)  # by beginning to listen again, in case something came meanwhile
    await settle()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
    await asyncio.wait_for(wakeup, PATIENCE_S)
    await heard(store)


@pytest.mark.skipif(available() is not None, reason=str(available()))
async def test_behind_a_pooler_a_postgres_store_knows_that_it_hears_nothing(
    postgres_server: PostgresServer, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "PROBE_PATIENCE_S", 0.2)
    migrate(postgres_dsn)
    name = postgres_dsn.rpartition("/")[2]
    with PgBouncer(postgres_server) as pooler:
        store = await PostgresStore.open(pooler.dsn(name))
        wakeup = next_wakeup(store)
        await asyncio.wait_for(wakeup, PATIENCE_S)
        await asyncio.sleep(0.5)  # the probe's patience: silence is what is to be noticed
        assert not store.listening
        await store.close()
        direct = await PostgresStore.open(f"{pooler.dsn(name)}?listen={postgres_dsn}")
        wakeup = next_wakeup(direct)
        await heard(direct)
        await asyncio.wait_for(wakeup, PATIENCE_S)
        await direct.close()


async def test_wakeups_of_a_postgres_store_are_two_hundred_a_second_at_most(
    postgres_dsn: str,
) -> None:
    clock = VirtualClock()
    store = PostgresStore(postgres_dsn)
    listener = Listener(None, store.desk, clock, Random(1))
    woken = 0

    async def count() -> None:
        nonlocal woken
        async for _ in listener.wakeups(["mail"]):
            woken += 1

    counting = asyncio.create_task(count())
    await settle()
    for _ in range(100):
        listener.wake(["mail"])
        listener.wake(["other"])
        await settle()
    assert woken == 1
    await clock.advance(wakeups.PAUSE_S)
    assert woken == 2
    await clock.advance(1.0)
    assert woken == 2
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    await listener.close()
    await store.close()


async def test_postgres_is_told_of_a_queue_in_the_end_however_often_it_gets_jobs(
    open_store: Open, postgres_dsn: str
) -> None:
    store = await open_store("?listen=off")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("LISTEN mailrace")
        began_s = SystemClock.monotonic_s()
        for _ in range(50):
            await store.enqueue([job()])
        took_s = SystemClock.monotonic_s() - began_s
        await store.enqueue([job("last")])
        await store.close()
        told = [notify.payload for notify in connection.notifies(timeout=0.0)]
    assert 1 <= told.count("default") <= 2 + took_s / PAUSE_S
    assert told.count("last") == 1


async def test_a_postgres_that_cannot_be_told_is_no_matter(postgres_dsn: str) -> None:
    store = PostgresStore("postgresql://postgres@127.0.0.1:1/nowhere")
    notifier = Notifier(store.desk, lambda _: None)
    notifier.tell({"default"})
    await notifier.close()
    await store.close()
