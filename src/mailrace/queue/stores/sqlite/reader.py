"""Reading beside the writer: a thread with a connection of its own."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mailrace.queue.stores.sqlite.database import connect, mapped_errors, snapshot

_T = TypeVar("_T")


class Reader:
    """Reads what is committed; neither waits for the writer nor keeps it waiting.

    Args:
        check: Raises if the file is no longer the one that the store was opened on.
    """

    def __init__(self, path: Path, check: Callable[[], None], *, name: str) -> None:
        self._path = path
        self._check = check
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Does work that only reads, on one snapshot of the file."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._connection is None:
            self._check()
            self._connection = connect(self._path)
        with mapped_errors(self._path), snapshot(self._connection):
            return work(self._connection)
