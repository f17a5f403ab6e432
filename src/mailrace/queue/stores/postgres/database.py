"""A few kept connections to PostgreSQL, and the statements that run on them.

Nothing outlives a transaction on the server: no setting, no lock, and behind a pooler no prepared
statement either, as that may hand every transaction to another server connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus

from mailrace.clock import Clock, SystemClock
from mailrace.errors import UnavailableError
from mailrace.queue.stores.postgres.dsn import address
from mailrace.queue.stores.postgres.mapping import mapped_errors
from mailrace.queue.stores.postgres.plans import PREPARED, Connection, Plans

Now = Callable[[], datetime | None]

OPTIONS: dict[str, Any] = {
    "application_name": "mailrace",
    "connect_timeout": 10,
    # A peer that vanished without a word is noticed within half a minute.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# Longer than any statement of ours takes; a pooler that lost its server never answers.
_PATIENCE_S = 60.0
_FRAGMENT = "-- fragment:"


class RawJson(Loader):
    """Hands a JSON value out as its bytes, not decoded."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


@cache
def statement(name: str) -> bytes:
    """The text of `sql/NAME.sql` with its fragments in their places, without comments."""
    return "\n".join(_lines("sql", name)).encode()


def _lines(folder: str, name: str) -> Iterator[str]:
    """The lines of a file; where `-- fragment: NAME` stands, those of `fragments/NAME.sql`."""
    text = files(__package__).joinpath(folder, f"{name}.sql").read_text(encoding="utf-8")
    for line in text.splitlines():
        code = line.lstrip()
        if code.startswith(_FRAGMENT):
            indent = line.removesuffix(code)
            fragment = code.removeprefix(_FRAGMENT).strip()
            yield from (indent + inner for inner in _lines("fragments", fragment))
        elif not code.startswith("--"):
            yield line


class Statements:
    """Runs `sql/NAME.sql`, with `now` bound, on a connection that somebody opened."""

    def __init__(self, connection: Connection, now: Now) -> None:
        self.connection = connection
        self._now = now

    async def rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]:
        return await (await self._execute(name, values)).fetchall()

    async def one(self, name: str, /, **values: Any) -> Any:
        """The first value of the first row, or `None`."""
        row = await (await self._execute(name, values)).fetchone()
        return None if row is None else row[0]

    async def run(self, name: str, /, **values: Any) -> int:
        """How many rows it changed."""
        return (await self._execute(name, values)).rowcount

    async def _execute(
        self, name: str, values: dict[str, Any]
    ) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        values["now"] = self._now()
        # psycopg prepares nothing on a connection without a threshold (`Plans.begin` sets one).
        prepare = name in PREPARED or None
        return await self.connection.execute(statement(name), values, prepare=prepare)


class Database:
    """Runs statements on at most `connections` connections, opened when needed and kept.

    A call waits while all are in use. One that fails takes its connection with it, and the next
    call opens another: whoever calls waits between its attempts.

    Args:
        dsn: As `dsn.address` takes it.
        clock: Whose time statements get as `now`; without one they take the server's.
    """

    def __init__(self, dsn: str, clock: Clock | None = None, *, connections: int = 2) -> None:
        found = address(dsn)
        self.place = found.place
        self.connections = connections
        self.dsn = found.dsn
        self._clock = clock
        self._turns = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._closed = False
        self._plans = Plans((clock or SystemClock()).monotonic_s)

    async def rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """One statement, and one transaction; what it answers."""
        async with self.connection() as connection:
            return await Statements(connection, self.now).rows(name, **values)

    async def one(self, name: str, /, **values: Any) -> Any:
        """The same; the first value of the first row, or `None`."""
        async with self.connection() as connection:
            return await Statements(connection, self.now).one(name, **values)

    async def run(self, name: str, /, **values: Any) -> int:
        """The same; how many rows it changed."""
        async with self.connection() as connection:
            return await Statements(connection, self.now).run(name, **values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """Several statements: all of them committed at the end, or none."""
        async with self.connection() as connection, connection.transaction():
            yield Statements(connection, self.now)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of one's own for a while, in autocommit; errors are mapped.

        Raises:
            UnavailableError: The server cannot be reached, went away, or does not answer. What
                was sent may have been done all the same.
        """
        with mapped_errors(self.place):
            async with asyncio.timeout(_PATIENCE_S), self._turns:
                connection = await self._take()
                try:
                    await self._plans.renew(connection)
                    yield connection
                except psycopg.errors.FeatureNotSupported:
                    await connection.close()  # what is prepared on it is of another schema
                    raise
                finally:
                    await self._give_back(connection)

    def now(self) -> datetime | None:
        """The time of the clock, if there is one; otherwise the server's holds."""
        return None if self._clock is None else datetime.fromtimestamp(self._clock.unix_s(), UTC)

    async def close(self) -> None:
        """Closes what is idle, and what is in use when it comes back. Idempotent."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _take(self) -> Connection:
        if self._closed:
            raise UnavailableError(f"the store {self.place} was closed", hint="open it again")
        while self._idle:
            connection = self._idle.pop()
            if not _spoken_to(connection):
                return connection
            await connection.close()  # the server ended it while it was idle
        connection = await connect(self.dsn)
        try:
            await self._plans.begin(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _give_back(self, connection: Connection) -> None:
        clean = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if clean and not self._closed:
            self._idle.append(connection)
        else:
            await connection.close()


async def connect(dsn: str) -> Connection:
    """A connection in autocommit that leaves nothing behind on the server."""
    connection: Connection = await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, prepare_threshold=None, **with_defaults(dsn)
    )
    connection.adapters.register_loader("json", RawJson)
    return connection


def connect_blocking(dsn: str, *, autocommit: bool = False) -> psycopg.Connection:
    """The same for a thread."""
    return psycopg.connect(dsn, autocommit=autocommit, prepare_threshold=None, **with_defaults(dsn))


def with_defaults(dsn: str) -> dict[str, Any]:
    """Our options where the address has none of its own."""
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    return {name: value for name, value in OPTIONS.items() if name not in given}


def _spoken_to(connection: Connection) -> bool:
    """Whether the server said something unasked on an idle connection: good-bye."""
    with DefaultSelector() as selector:
        selector.register(connection.fileno(), EVENT_READ)
        return bool(selector.select(0))
