"""Enqueues in a program's own transaction: the jobs are there when it commits, or never were.

Connections are known by the names of their classes, so that none of the libraries has to be there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from mailrace.errors import MailraceError, MisuseError
from mailrace.queue.jobs import Enqueued, NewJob
from mailrace.queue.stores.postgres.mapping import refusal
from mailrace.queue.stores.postgres.records import jobs_json

_ENQUEUE: Final = "SELECT job_id, created FROM mailrace.enqueue_many(CAST({} AS json))"
_BLOCKING: Final = {
    ("psycopg", "Connection"): "psycopg",
    ("psycopg", "Cursor"): "its connection",
    ("psycopg2", "connection"): "cursor",
    ("psycopg2", "cursor"): "its connection",
    ("django", "BaseDatabaseWrapper"): "cursor",
    ("django", "ConnectionProxy"): "cursor",
    ("sqlalchemy", "Connection"): "execute",
    ("sqlalchemy", "Session"): "session",
    ("sqlalchemy", "scoped_session"): "session",
}
_ASYNC: Final = {
    ("psycopg", "AsyncConnection"): "psycopg",
    ("psycopg", "AsyncCursor"): "its connection",
    ("sqlalchemy", "AsyncConnection"): "execute",
    ("sqlalchemy", "AsyncSession"): "session",
    ("sqlalchemy", "async_scoped_session"): "session",
}
_ACCEPTED: Final = (
    "give a connection or cursor of psycopg, a connection or session of SQLAlchemy,"
    " or django.db.connection"
)


def enqueue_statement(jobs: Sequence[NewJob]) -> tuple[str, tuple[str]]:
    """The statement that adds jobs, and its parameters, for any driver that takes `%s`.

    It answers a row for each job, in their order: its id, and whether it is new.
    """
    return _ENQUEUE.format("%s"), (jobs_json(jobs),)


def enqueue_in(connection: Any, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """Adds jobs in the transaction that a connection is in; it is not committed here.

    Args:
        connection: A `psycopg.Connection`, a `sqlalchemy.Connection`, an ORM `Session`, Django's
            `connection` or `connections["name"]`; a cursor stands for its connection.

    Raises:
        ConflictError: A queue is draining, or a batch is sealed or not known.
        MisuseError: It is something else, or a job is wrong.
    """
    way = _way(connection, _BLOCKING, _ASYNC, other="enqueue_in_async")
    if way == "its connection":
        return enqueue_in(connection.connection, jobs)
    if way == "session":
        return enqueue_in(connection.connection(), jobs)
    with _refusals():
        if way == "execute":
            return _answers(connection.execute(*_portable(jobs)).fetchall())
        with _cursor(connection, way) as cursor:
            cursor.execute(*enqueue_statement(jobs))
            return _answers(cursor.fetchall())


async def enqueue_in_async(connection: Any, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """The same on a `psycopg.AsyncConnection`, or SQLAlchemy's `AsyncConnection`, `AsyncSession`.

    Raises:
        ConflictError: A queue is draining, or a batch is sealed or not known.
        MisuseError: It is something else, or a job is wrong.
    """
    way = _way(connection, _ASYNC, _BLOCKING, other="enqueue_in")
    if way == "its connection":
        return await enqueue_in_async(connection.connection, jobs)
    if way == "session":
        return await enqueue_in_async(await connection.connection(), jobs)
    with _refusals():
        if way == "execute":
            return _answers((await connection.execute(*_portable(jobs))).fetchall())
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            statement, values = enqueue_statement(jobs)
            await cursor.execute(statement.encode(), values)
            return _answers(await cursor.fetchall())


def _way(
    connection: object,
    known: Mapping[tuple[str, str], str],
    elsewhere: Mapping[tuple[str, str], str],
    *,
    other: str,
) -> str:
    """How to run a statement on it."""
    names = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(connection).mro()]
    for name in names:
        if name in known:
            return known[name]
    given = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if any(name in elsewhere for name in names):
        raise MisuseError(f"a {given} cannot be used here", hint=f"call {other}")
    raise MisuseError(f"a {given} is no connection that jobs can be enqueued on", hint=_ACCEPTED)


def _cursor(connection: Any, way: str) -> Any:
    if way == "psycopg":  # it may be set to make cursors of another kind, with other rows
        return psycopg.Cursor(connection, row_factory=tuple_row)
    return connection.cursor()


def _portable(jobs: Sequence[NewJob]) -> tuple[Any, dict[str, str]]:
    """The statement for SQLAlchemy, which knows how its driver marks a parameter."""
    return import_module("sqlalchemy").text(_ENQUEUE.format(":jobs")), {"jobs": jobs_json(jobs)}


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what our functions refuse into errors of ours; the driver's own stay as they are."""
    try:
        yield
    except MailraceError:
        raise
    except Exception as error:
        found = refusal(error)
        if found is None:
            raise
        raise found from error


def _answers(rows: Sequence[Any]) -> list[Enqueued]:
    # A connection may be set to make its rows of another kind.
    return [
        Enqueued(row["job_id"], row["created"]) if isinstance(row, Mapping) else Enqueued(*row)
        for row in rows
    ]
