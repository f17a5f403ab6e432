"""What every part of the store stands on: its threads, their connections, its clock."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from mailrace.clock import Clock
from mailrace.errors import UnavailableError
from mailrace.queue.stores.sqlite.bell import Bell
from mailrace.queue.stores.sqlite.database import (
    connect,
    mapped_errors,
    prepare,
    statement,
    transaction,
)
from mailrace.queue.stores.sqlite.reader import Reader

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Base:
    """The file, with a thread that writes, one for looks that workers wait for, and one for lists.

    No list that a person looks at is ever in a worker's way, and no look waits for a commit.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock) -> None:
        self.path = path
        self._connection = connection
        self._clock = clock
        self._stat = path.stat()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailrace-store")
        self._looks = Reader(path, self._check_there, name="mailrace-store-look")
        self._lists = Reader(path, self._check_there, name="mailrace-store-list")
        self._survey_from: dict[str, str] = {}
        self._bells: set[Bell] = set()
        self._closed = False

    @classmethod
    def open(cls, path: Path, clock: Clock) -> Self:
        """Opens or makes the file and brings its schema up to date.

        Raises:
            MisuseError: The path leads nowhere, or to something that is no store.
        """
        connection = connect(path)
        try:
            with mapped_errors(path):
                prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, clock)

    async def close(self) -> None:
        self._closed = True
        self._ring()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()
        await asyncio.to_thread(self._looks.close)
        await asyncio.to_thread(self._lists.close)

    async def _write(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs the work on the writer's thread, as one transaction."""

        def in_transaction() -> _T:
            self._check_there()
            with mapped_errors(self.path), transaction(self._connection):
                return work(*args, **kwargs)

        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._thread, in_transaction)

    async def _look(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Runs short work that only reads, and that workers wait for."""
        return await self._on(self._looks, work)

    async def _rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """What one statement answers, as a look."""
        return await self._look(lambda reading: reading.execute(statement(name), values).fetchall())

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Runs work that only reads and may take long, such as a list."""
        return await self._on(self._lists, work)

    async def _on(self, reader: Reader, work: Callable[[sqlite3.Connection], _T]) -> _T:
        self._check_open()
        return await reader.run(work)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"the store {self.path} was closed", hint="open it again")

    def _hung_bell(self) -> Bell:
        bell = Bell(self._clock)
        self._bells.add(bell)
        return bell

    def _ring(self) -> None:
        """Wakes those in this process who wait for jobs."""
        for bell in self._bells:
            bell.ring()

    def _check_there(self) -> None:
        """Refuses to go on in a file that nobody will find again."""
        try:
            same = os.path.samestat(self.path.stat(), self._stat)
        except FileNotFoundError:
            same = False
        if not same:
            raise UnavailableError(
                f"the store {self.path} was removed or replaced while in use",
                hint="put it back; without it nobody knows what was done",
            )

    def _now_ms(self) -> int:
        return int(self._clock.unix_s() * 1000)
