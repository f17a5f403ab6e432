"""What every part of the store stands on: its threads, their connections, its clock."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from mailrace.clock import Clock
from mailrace.errors import UnavailableError
from mailrace.queue.stores.sqlite.bell import Bell
from mailrace.queue.stores.sqlite.database import (
    connect,
    mapped_errors,
    prepare,
    snapshot,
    transaction,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Base:
    """The file, with one thread that writes and one that reads what may take long.

    What workers ask for goes through the writer also where it only reads: no list that a person
    looks at is ever in its way.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock) -> None:
        self.path = path
        self._connection = connection
        self._clock = clock
        self._stat = path.stat()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailrace-store")
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailrace-store-read")
        self._reader: sqlite3.Connection | None = None
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
        await asyncio.to_thread(self._reading.shutdown)
        self._connection.close()
        if self._reader is not None:
            self._reader.close()

    async def _write(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs the work on the writer's thread, as one transaction."""

        def in_transaction() -> _T:
            self._check_there()
            with mapped_errors(self.path), transaction(self._connection):
                return work(*args, **kwargs)

        return await self._on(self._thread, in_transaction)

    async def _look(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs work that only reads on the writer's thread: short, and never behind a list."""

        def on_snapshot() -> _T:
            with mapped_errors(self.path), snapshot(self._connection):
                return work(*args, **kwargs)

        return await self._on(self._thread, on_snapshot)

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Runs work that only reads beside the writer, on one snapshot of the file."""
        return await self._on(self._reading, partial(self._on_reader, work))

    async def _on(self, thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        if self._closed:
            raise UnavailableError(f"the store {self.path} was closed", hint="open it again")
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def _on_reader(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._reader is None:
            self._check_there()
            self._reader = connect(self.path)
        with mapped_errors(self.path), snapshot(self._reader):
            return work(self._reader)

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
