"""Jobs enqueued in a program's own transaction, on real connections of the libraries in use."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue.flows import Want
from mailrace.queue.jobs import NewJob
from mailrace.queue.processes import NewProcess
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.transactions import (
    enqueue_in,
    enqueue_in_async,
    enqueue_statement,
)

Opened = tuple[Any, Callable[[], object], Callable[[], object]]


def job(name: str = "welcome", **fields: Any) -> NewJob:
    return NewJob(kind="mail", payload=msgspec.Raw(msgspec.json.encode({"to": name})), **fields)


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_dsn)
    yield opened
    await opened.close()


async def claimed(store: PostgresStore) -> list[str]:
    process_id = await store.register(NewProcess(journal="journal"), 30.0)
    jobs = await store.claim(process_id, [Want("default", "", 0, 10)])
    return [msgspec.json.decode(found.payload)["to"] for found in jobs]


@contextmanager
def by_psycopg(dsn: str) -> Iterator[Opened]:
    with psycopg.connect(dsn) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def by_psycopg_with_dict_rows(dsn: str) -> Iterator[Opened]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def by_psycopg_with_raw_cursors(dsn: str) -> Iterator[Opened]:
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def by_cursor(dsn: str) -> Iterator[Opened]:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        yield cursor, connection.commit, connection.rollback


@contextmanager
def engine_on(dsn: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def by_sqlalchemy(dsn: str) -> Iterator[Opened]:
    with engine_on(dsn) as engine, engine.connect() as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def by_session(dsn: str) -> Iterator[Opened]:
    with engine_on(dsn) as engine, Session(engine) as session:
        yield session, session.commit, session.rollback


@contextmanager
def by_scoped_session(dsn: str) -> Iterator[Opened]:
    with engine_on(dsn) as engine:
        session = scoped_session(sessionmaker(engine))
        yield session, session.commit, session.rollback
        session.remove()


@contextmanager
def by_django(dsn: str) -> Iterator[Opened]:
    values = psycopg.conninfo.conninfo_to_dict(dsn)
    base = pytest.importorskip("django.db.backends.postgresql.base")
    connection = base.DatabaseWrapper(
        {
            "ENGINE": "django.db.backends.postgresql", "NAME": values["dbname"],
            "USER": values["user"], "PASSWORD": values.get("password", ""),
            "HOST": values["host"], "PORT": values["port"], "OPTIONS": {}, "TIME_ZONE": None,
            "ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "CONN_MAX_AGE": 0,
            "CONN_HEALTH_CHECKS": False,
        }
    )  # fmt: skip
    connection.set_autocommit(False)
    try:
        yield connection, connection.commit, connection.rollback
    finally:
        connection.close()


@contextmanager
def by_the_connection_of_a_project(dsn: str) -> Iterator[Opened]:
    proxies = pytest.importorskip("django.utils.connection")
    with by_django(dsn) as (connection, commit, rollback):
        yield proxies.ConnectionProxy({"default": connection}, "default"), commit, rollback


WAYS = [
    by_psycopg, by_psycopg_with_dict_rows, by_psycopg_with_raw_cursors, by_cursor, by_sqlalchemy,
    by_session, by_scoped_session, by_django, by_the_connection_of_a_project,
]  # fmt: skip
Way = Callable[[str], AbstractContextManager[Opened]]


@pytest.fixture(autouse=True)
def _django_without_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    # The stores of these tests run on a loop, where Django lets nobody block.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    settings = pytest.importorskip("django.conf").settings
    if not settings.configured:
        settings.configure(USE_TZ=True, LOGGING_CONFIG=None)
        pytest.importorskip("django").setup()


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_is_there_from_the_commit_on(
    store: PostgresStore, postgres_dsn: str, way: Way
) -> None:
    with way(postgres_dsn) as (connection, commit, _):
        answers = enqueue_in(connection, [job("first"), job("second")])
        assert [answer.new for answer in answers] == [True, True]
        assert await claimed(store) == []
        commit()
        assert await claimed(store) == ["first", "second"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_rollback_leaves_nothing(store: PostgresStore, postgres_dsn: str, way: Way) -> None:
    with way(postgres_dsn) as (connection, _, rollback):
        enqueue_in(connection, [job(), job("keyed", unique="one", idempotency="two")])
        rollback()
    assert await store.queue_figures() == []
    (answer,) = await store.enqueue([job("again", unique="one", idempotency="two")])
    assert answer.new
    assert await claimed(store) == ["again"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_refusal_is_an_error_of_ours(
    store: PostgresStore, postgres_dsn: str, way: Way
) -> None:
    await store.set_queue(QueueRules(name="closed", draining=True))
    with way(postgres_dsn) as (connection, _, rollback):
        with pytest.raises(ConflictError, match="'closed' is draining"):
            enqueue_in(connection, [job(queue="closed")])
        rollback()
        with pytest.raises(MisuseError, match="priority is 10; give a number from -9 to 9"):
            enqueue_in(connection, [job(priority=10)])
        rollback()


async def test_the_statement_alone_does_it_on_any_driver(
    store: PostgresStore, postgres_dsn: str
) -> None:
    statement, values = enqueue_statement([job("%s")])
    with psycopg.connect(postgres_dsn, cursor_factory=psycopg.ClientCursor) as connection:
        rows = connection.execute(statement.encode(), values).fetchall()
    assert [new for _, new in rows] == [True]
    assert await claimed(store) == ["%s"]


async def test_psycopg_async_does_the_same(store: PostgresStore, postgres_dsn: str) -> None:
    connection = await psycopg.AsyncConnection.connect(postgres_dsn)
    async with connection:
        await enqueue_in_async(connection, [job("gone")])
        await connection.rollback()
        await enqueue_in_async(connection.cursor(), [job("kept")])
        assert await claimed(store) == []
    assert await claimed(store) == ["kept"]


async def test_sqlalchemy_async_does_the_same(store: PostgresStore, postgres_dsn: str) -> None:
    pytest.importorskip("greenlet", reason="not installed: greenlet, which SQLAlchemy needs")
    aio = pytest.importorskip("sqlalchemy.ext.asyncio")
    engine = aio.create_async_engine(
        postgres_dsn.replace("postgresql://", "postgresql+psycopg_async://")
    )
    async with aio.AsyncSession(engine) as session, engine.connect() as connection:
        await enqueue_in_async(session, [job("gone")])
        await session.rollback()
        await enqueue_in_async(session, [job("by session")])
        await enqueue_in_async(connection, [job("by connection")])
        assert await claimed(store) == []
        await session.commit()
        await connection.commit()
    await engine.dispose()
    assert sorted(await claimed(store)) == ["by connection", "by session"]


def test_what_is_no_connection_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(MisuseError, match=r"builtins\.str is no connection .*django\.db"):
        enqueue_in("postgresql://localhost", [job()])


async def test_a_connection_of_the_other_colour_is_refused(postgres_dsn: str) -> None:
    with (
        psycopg.connect(postgres_dsn) as blocking,
        pytest.raises(MisuseError, match=r"call enqueue_in$"),
    ):
        await enqueue_in_async(blocking, [job()])
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        with pytest.raises(MisuseError, match="call enqueue_in_async"):
            enqueue_in(connection, [job()])


async def test_the_caller_s_own_errors_stay_as_they_are(postgres_dsn: str) -> None:
    with (
        psycopg.connect(postgres_dsn) as connection,
        pytest.raises(psycopg.errors.InvalidSchemaName),
    ):
        enqueue_in(connection, [job()])
