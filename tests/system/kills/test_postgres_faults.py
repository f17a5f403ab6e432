"""A server that goes away, a network that breaks: the same processes go on, nothing is lost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from mailrace.jobs import JobState
from mailrace.queue.stores.postgres.positions import Positions
from mailrace.queue.stores.postgres.surveys import LastSurvey
from tests.support.postgres import PostgresServer, available
from tests.support.proxy import TcpProxy
from tests.system.kills.books import KINDS, Books, until
from tests.system.kills.processes import Process

EVERYTHING = bool(int(os.environ.get("MAILRACE_TEST_KILLS", "0")))
JOBS = 120
LEASE_S = 1.5
TODAY = "(now() AT TIME ZONE 'UTC')::date"
WAITING = (
    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%jobs_completed%'"
    " AND datname = current_database()"
)
QUICKLY_S = 20.0  # longer than any pause between two tries, on a busy machine


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that nobody else is on."""
    if reason := available():
        pytest.skip(reason)
    with PostgresServer(fsync=False) as found:
        yield found


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Iterator[Books]:
    with server.fresh_database() as dsn:
        yield Books(dsn, tmp_path)


def ask(books: Books, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(books.store, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def until_days(books: Books) -> None:
    """Until the upkeep has made the partitions of a new store."""
    day = f"SELECT WHERE to_regclass('mailrace.' || mailrace.day_name({TODAY})) IS NOT NULL"
    until(lambda: ask(books, day))


def working(books: Books, stack: ExitStack, **plan: object) -> Process:
    """A process in the middle of its jobs."""
    books.enqueue([*KINDS] * (JOBS // len(KINDS)))
    process = books.process(stack, **{"pause_s": 0.02, "grace_s": 5.0} | plan)
    process.jobs_until("finished", JOBS // 10)
    return process


def check_recovered(books: Books, process: Process, *, again: int = 0) -> None:
    """Everything is done, nothing twice, and the process is as quick as before."""
    books.until_final()
    listener = "SELECT FROM pg_stat_activity WHERE query = 'LISTEN mailrace'"
    until(lambda: ask(books, listener + " AND datname = current_database()"))
    process.forget()
    books.enqueue(["once"])
    process.until("woken")
    books.enqueue(["quick"] * 500)
    began_s = time.monotonic()
    books.until_final()
    assert time.monotonic() - began_s < QUICKLY_S
    process.drain()
    assert set(books.states()) == {JobState.COMPLETED}
    assert sum(books.begun().values()) <= len(books.kinds) + again
    books.check()


def restarted(server: PostgresServer, books: Books) -> None:
    server.restart()


def crashed(server: PostgresServer, books: Books) -> None:
    server.kill()
    server.start()


def terminated(server: PostgresServer, books: Books) -> None:
    for _ in range(3):
        ask(
            books,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        time.sleep(0.1)


@pytest.mark.parametrize("fault", [crashed, terminated, *([restarted] if EVERYTHING else [])])
def test_a_server_that_goes_away_for_a_moment(
    server: PostgresServer,
    books: Books,
    stack: ExitStack,
    fault: Callable[[PostgresServer, Books], None],
) -> None:
    process = working(books, stack)
    fault(server, books)
    check_recovered(books, process)


@contextmanager
def proxied(server: PostgresServer, books: Books) -> Iterator[tuple[TcpProxy, str]]:
    with TcpProxy(server.port) as proxy:
        yield proxy, books.store.replace(f":{server.port}/", f":{proxy.port}/")


@pytest.mark.skipif(not EVERYTHING, reason="a server that ends its connections is as good")
def test_a_network_that_resets_connections(
    server: PostgresServer, books: Books, stack: ExitStack
) -> None:
    with proxied(server, books) as (proxy, store):
        process = working(books, stack, store=store)
        for _ in range(3):
            proxy.reset()
            time.sleep(0.1)
        check_recovered(books, process)


def test_a_network_that_carries_nothing_for_less_than_a_lease(
    server: PostgresServer, books: Books, stack: ExitStack
) -> None:
    with proxied(server, books) as (proxy, store):
        process = working(books, stack, store=store, lease_s=10.0)
        proxy.stall()
        time.sleep(1.0)
        proxy.heal()
        check_recovered(books, process)
        assert all(line["event"] != "lease lost" for line in process.said)


@pytest.mark.parametrize("stalled_s", [2.0, 30.0])
def test_what_took_long_as_the_network_stood_still_is_soon_asked_again(stalled_s: float) -> None:
    """Or new jobs would not be seen for ten times as long as nothing was heard of the server."""
    survey, positions = LastSurvey(), Positions()
    survey.made(("asked",), [], now_s=0.0, cost_s=stalled_s)
    positions.looked_from_start(0.0, stalled_s)
    assert survey.again(("asked",), 2.0) is None
    assert positions.full(10.0)
    assert positions.full_after_short(10.0)


def test_a_network_that_carries_nothing_for_longer_than_a_lease(
    server: PostgresServer, books: Books, stack: ExitStack
) -> None:
    """Somebody else does what it had; what it had begun counts as its journal says."""
    with proxied(server, books) as (proxy, store):
        process = working(books, stack, store=store, lease_s=LEASE_S)
        proxy.stall()
        other = books.process(stack, lease_s=LEASE_S)
        books.until_final()
        books.enqueue(["once"] * 20)
        books.until_final()
        other.drain()
        proxy.heal()
        check_recovered(books, process, again=4 * 3)


def test_a_finish_that_commits_and_whose_answer_never_comes(
    server: PostgresServer, books: Books, stack: ExitStack
) -> None:
    """It is written once more, and refused: it is there already."""
    books.enqueue([*KINDS] * 3)
    with proxied(server, books) as (proxy, store):
        process = books.process(stack, store=store, holds=["finish"], told=True)
        process.until("finish")
        process.jobs_until("attempted", 12)
        until_days(books)
        with psycopg.connect(books.store) as connection:  # holds the finish up on the server
            connection.execute("SELECT FROM mailrace.jobs FOR UPDATE")
            process.send(signal.SIGUSR1)
            until(lambda: ask(books, WAITING))
            proxy.stall(requests=False)
        until(lambda: books.counts().get(JobState.COMPLETED, 0) > 0)
        proxy.reset()
        proxy.heal()
        assert process.until_ever("finished")["refused"] > 0
        check_recovered(books, process)


def test_a_day_that_gets_its_partition_while_jobs_of_it_are_finished(
    books: Books, stack: ExitStack
) -> None:
    books.enqueue([*KINDS] * 3)
    process = books.process(stack, holds=["finish"], told=True)
    process.until("finish")
    process.jobs_until("attempted", 12)
    until_days(books)
    (day,) = ask(books, f"SELECT mailrace.day_name({TODAY})")[0]
    with psycopg.connect(books.store) as connection:
        connection.execute(f"DROP TABLE mailrace.{day}".encode())
        connection.commit()
        connection.execute(f"SELECT mailrace.add_day({TODAY})".encode())
        process.send(signal.SIGUSR1)
        until(lambda: ask(books, WAITING))
    check_recovered(books, process)


def test_a_heartbeat_that_is_never_answered(books: Books, stack: ExitStack) -> None:
    """As behind a pooler that lost its server: the connection lives, and says nothing any more."""
    process = working(books, stack, lease_s=LEASE_S)
    books.until_final()
    backend = 0

    def heartbeat() -> bool:
        nonlocal backend
        found = ask(
            books,
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'UPDATE mailrace.processes SET%'"
            " AND datname = current_database()",
        )
        backend = int(str(found[0][0])) if found else 0
        return bool(found)

    until(heartbeat)
    os.kill(backend, signal.SIGSTOP)
    try:
        process.until("lease lost")
        books.enqueue(["once"] * 20)
        books.until_final()
        process.drain()
    finally:
        os.kill(backend, signal.SIGCONT)
    books.check()
