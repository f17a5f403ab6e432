"""What the store on PostgreSQL makes of addresses, errors and lost connections."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from mailrace.errors import ConflictError, MailraceError, MisuseError, UnavailableError
from mailrace.queue.flows import Want
from mailrace.queue.jobs import NewJob
from mailrace.queue.processes import NewProcess, Vitals
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.database import connect
from mailrace.queue.stores.postgres.dsn import address
from mailrace.queue.stores.postgres.migrate import migrate
from mailrace.queue.stores.postgres.plans import FRESH_S, Plans
from tests.support.clock import VirtualClock
from tests.support.pgbouncer import PgBouncer
from tests.support.pgbouncer import available as no_pgbouncer
from tests.support.postgres import PostgresServer, available

URL = "postgresql://ann:s3cret@db.example:5433/mail"


def job(**fields: Any) -> NewJob:
    return NewJob(**{"kind": "kind", "payload": msgspec.Raw(b"{}")} | fields)


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_dsn)
    yield opened
    await opened.close()


WAITING = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def until(connection: psycopg.Connection, query: str) -> None:
    """Asks until there is an answer."""
    async with asyncio.timeout(30):
        while True:
            if connection.execute(query.encode()).fetchall():
                return
            await asyncio.sleep(0)


# Addresses


@pytest.mark.parametrize(
    ("dsn", "plain", "listen"),
    [
        (URL, URL, URL),
        (f"{URL}?listen=off", URL, None),
        (f"{URL}?listen=on", URL, URL),
        (f"{URL}?sslmode=require&listen=off", f"{URL}?sslmode=require", None),
        (
            f"{URL}?listen=postgresql%3A%2F%2Fann%40direct%2Fmail%3Fsslmode%3Drequire",
            URL,
            "postgresql://ann@direct/mail?sslmode=require",
        ),
        (f"{URL}?options=-c%20a%3Db&listen=off", f"{URL}?options=-c%20a%3Db", None),
        ("host=db.example user=ann", "host=db.example user=ann", "host=db.example user=ann"),
    ],
)
def test_our_options_are_taken_out_of_a_postgres_address(
    dsn: str, plain: str, listen: str | None
) -> None:
    found = address(dsn)
    assert (found.dsn, found.listen) == (plain, listen)


def test_the_place_shows_no_password_of_postgres() -> None:
    assert address(URL).place == "postgresql://ann@db.example:5433/mail"
    assert address("postgresql:///mail?password=s3cret").place == "postgresql://localhost/mail"


@pytest.mark.parametrize("dsn", ["postgresql://ann:s3cret@[", f"{URL}?nonsense=s3cret", "s3cret"])
def test_an_address_that_libpq_cannot_read_is_refused_without_quoting_it(dsn: str) -> None:
    with pytest.raises(MisuseError) as caught:
        address(dsn)
    assert "s3cret" not in str(caught.value)
    assert "postgresql://user:password@host" in str(caught.value)


# Errors


async def refusal(dsn: str) -> MailraceError:
    with pytest.raises(MailraceError) as caught:
        await PostgresStore.open(dsn)
    return caught.value


async def test_a_postgres_that_is_not_there_is_unavailable() -> None:
    error = await refusal("postgresql://ann:s3cret@127.0.0.1:1/mail")
    assert isinstance(error, UnavailableError)
    assert "check that its server runs" in str(error)
    assert "s3cret" not in str(error)


async def test_a_database_that_does_not_exist_is_a_mistake(postgres_dsn: str) -> None:
    error = await refusal(re.sub(r"/\w+$", "/nowhere", postgres_dsn))
    assert isinstance(error, MisuseError)
    assert "create it, or check the name" in str(error)


async def test_a_postgres_user_that_does_not_exist_is_a_mistake(postgres_dsn: str) -> None:
    error = await refusal(postgres_dsn.replace("://postgres", "://nobody:s3cret"))
    assert isinstance(error, MisuseError)
    assert "check the user in the address" in str(error)
    assert "s3cret" not in str(error)


async def test_without_tables_the_postgres_store_says_how_to_make_them(postgres_dsn: str) -> None:
    store = PostgresStore(postgres_dsn)
    with pytest.raises(MisuseError, match=r"no tables yet.*run mailrace migrate"):
        await store.batches()
    await store.close()


async def test_without_rights_the_postgres_store_says_so(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE mailrace_guest LOGIN")
    try:
        store = PostgresStore(postgres_dsn.replace("://postgres", "://mailrace_guest"))
        with pytest.raises(MisuseError, match=r"permission denied.*grant"):
            await store.batches()
        await store.close()
    finally:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE mailrace_guest")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"priority": 10}, "priority is 10"),
        ({"attempts": 0}, "attempts is 0"),
        ({"kind": ""}, "a job has no kind"),
        ({"tenant": "a\0b"}, "Unicode escape"),
        ({"payload": msgspec.Raw(b"{")}, "json"),
    ],
)
async def test_what_postgres_cannot_take_is_a_mistake(
    store: PostgresStore, wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(MisuseError, match=words):
        await store.enqueue([job(), job(**wrong)])
    assert await store.queue_figures() == []


async def enqueue_impatiently(store: PostgresStore) -> None:
    async with store.work.transaction() as transaction:
        await transaction.connection.execute("SET LOCAL lock_timeout = '10ms'")
        await transaction.one("enqueue", jobs='[{"kind": "kind"}]')


async def test_a_lock_that_is_not_had_in_time_makes_it_unavailable(
    store: PostgresStore, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("LOCK TABLE mailrace.jobs")
        with pytest.raises(UnavailableError, match="somebody holds a lock"):
            await enqueue_impatiently(store)


async def test_a_postgres_that_only_reads_is_unavailable(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    store = await PostgresStore.open(postgres_dsn)
    with pytest.raises(UnavailableError, match="standby"):
        await store.enqueue([job()])
    await store.close()


# Connections


async def pids(store: PostgresStore) -> set[int]:
    async def one() -> int:
        async with store.work.connection() as connection:
            await asyncio.sleep(0)
            return connection.info.backend_pid

    return set(await asyncio.gather(one(), one(), one(), one()))


async def test_no_more_postgres_connections_are_opened_than_were_promised(
    store: PostgresStore, postgres_dsn: str
) -> None:
    process_id = await store.register(NewProcess(journal="journal"), 30.0)
    renew = store.renewer(process_id, 30.0)
    assert await asyncio.to_thread(renew, Vitals())
    waiting = asyncio.ensure_future(anext(store.wakeups(["default"])))
    await asyncio.gather(*(store.enqueue([job()]) for _ in range(50)))
    await asyncio.gather(*(store.queue_figures() for _ in range(20)))
    await waiting
    with psycopg.connect(postgres_dsn) as connection:
        rows = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'mailrace' AND datname = current_database()"
        ).fetchone()
    assert rows is not None
    assert rows[0] <= store.connections == 5


async def test_a_postgres_connection_that_the_server_ended_while_idle_is_replaced_unseen(
    store: PostgresStore, postgres_dsn: str
) -> None:
    before = await pids(store)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for pid in before:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    await store.enqueue([job()])
    assert before.isdisjoint(await pids(store))


async def test_a_postgres_statement_that_lost_its_connection_is_unavailable(
    store: PostgresStore, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute("LOCK TABLE mailrace.jobs")
        enqueuing = asyncio.create_task(store.enqueue([job()]))
        with psycopg.connect(postgres_dsn, autocommit=True) as killer:
            await until(killer, f"SELECT pg_terminate_backend(pid) {WAITING}")
        with pytest.raises(UnavailableError):
            await enqueuing
    assert [answer.new for answer in await store.enqueue([job()])] == [True]


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One to stop: others keep connections to the run's server."""
    if reason := available():
        pytest.skip(reason)
    with PostgresServer(fsync=False) as server:
        yield server


async def test_a_postgres_that_is_down_is_unavailable_and_used_again_when_it_is_up(
    own_server: PostgresServer,
) -> None:
    store = await PostgresStore.open(own_server.dsn())
    await store.enqueue([job()])
    process_id = await store.register(NewProcess(journal="journal"), 30.0)
    renew = store.renewer(process_id, 30.0)
    assert renew(Vitals())
    own_server.stop()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await store.enqueue([job()])
        with pytest.raises(UnavailableError):
            renew(Vitals())
    own_server.start()
    await store.enqueue([job()])
    assert renew(Vitals())
    assert [figures.due for figures in await store.queue_figures()] == [2]
    await store.close()


async def test_a_cancelled_call_leaves_the_postgres_connections_usable(
    store: PostgresStore, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute("LOCK TABLE mailrace.jobs")
        calls = [asyncio.create_task(store.enqueue([job()])) for _ in range(3)]
        with psycopg.connect(postgres_dsn, autocommit=True) as watcher:
            # Both that have a connection: before, there may be nothing that can be cancelled.
            await until(watcher, f"SELECT true {WAITING} HAVING count(*) = 2")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert [answer.new for answer in await store.enqueue([job()])] == [True]
    assert [figures.due for figures in await store.queue_figures()] == [1]


async def test_a_failed_postgres_transaction_does_nothing(store: PostgresStore) -> None:
    async def change_of_mind() -> None:
        async with store.work.transaction() as transaction:
            await transaction.one("enqueue", jobs='[{"kind": "kind"}]')
            raise ConflictError("it was decided otherwise")

    with pytest.raises(ConflictError):
        await change_of_mind()
    assert await store.queue_figures() == []


async def test_a_closed_postgres_store_says_so(store: PostgresStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(UnavailableError, match="was closed"):
        await store.enqueue([job()])


async def use(store: PostgresStore) -> None:
    process_id = await store.register(NewProcess(journal="journal"), 30.0)
    for _ in range(10):  # psycopg prepares what was run five times
        await store.enqueue([job(unique="one")])
        for claimed in await store.claim(process_id, [Want("default", "", 0, 1)]):
            await store.begin(process_id, [(claimed.id, claimed.lease)])
        await store.survey(["*"])
        await store.queue_figures()
        await store.tidy()


async def prepared(store: PostgresStore) -> set[str]:
    """What is prepared on the connection that is used next."""
    async with store.work.connection() as connection:
        cursor = await connection.execute("SELECT statement FROM pg_prepared_statements")
        return {text.split("(")[0].strip() for (text,) in await cursor.fetchall()}


async def test_nothing_of_ours_stays_in_a_postgres_session(postgres_dsn: str) -> None:
    """A pooler hands each transaction to another session: no setting, lock or table is in one.

    Statements are prepared where no pooler stands in between.
    """
    migrate(postgres_dsn)
    store = PostgresStore(postgres_dsn)
    async with store.work.connection() as connection:
        # Those of the language appear with the first function that is called.
        settings = (
            "SELECT name, setting FROM pg_settings WHERE category NOT LIKE 'Customized%' ORDER BY 1"
        )
        before = await (await connection.execute(settings)).fetchall()
    await use(store)
    async with store.work.connection() as one, store.work.connection() as other:
        for connection in (one, other):
            assert await (await connection.execute(settings)).fetchall() == before
            for query in (
                "SELECT * FROM pg_cursors",
                "SELECT pg_listening_channels()",
                "SELECT * FROM pg_locks WHERE locktype = 'advisory'",
                "SELECT * FROM pg_class WHERE relpersistence = 't'",
            ):
                assert await (await connection.execute(query.encode())).fetchall() == []
    await store.close()


async def test_what_a_worker_asks_all_the_time_is_planned_once_by_postgres(
    store: PostgresStore,
) -> None:
    for _ in range(10):
        await store.survey(["default"])
        await store.processes()  # asked now and then
    assert len(await prepared(store)) == 1


async def test_postgres_plans_anew_once_a_second_as_tables_grow(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock()
    plans = Plans(clock.monotonic_s)
    async with await connect(postgres_dsn) as connection:
        asked: list[tuple[float, object]] = []

        async def noted(query: object) -> object:
            asked.append((clock.monotonic_s(), query))
            return await execute(query)

        await plans.begin(connection)
        execute: Any = connection.execute
        monkeypatch.setattr(connection, "execute", noted)
        for _ in range(10):
            await plans.renew(connection)
            clock.move_to(clock.monotonic_s() + FRESH_S / 4)
    assert asked == [(1.0, "DISCARD PLANS"), (2.0, "DISCARD PLANS")]


@pytest.mark.skipif(no_pgbouncer() is not None, reason=str(no_pgbouncer()))
async def test_behind_a_pooler_nothing_is_prepared_on_postgres(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    migrate(postgres_dsn)
    with PgBouncer(postgres_server) as pooler:
        store = await PostgresStore.open(pooler.dsn(postgres_dsn.rpartition("/")[2]))
        await use(store)
        assert await prepared(store) == set()
        await store.close()
