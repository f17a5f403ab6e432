"""Tells everybody that jobs came into queues, not too often."""

import asyncio
from collections.abc import Callable

from mailrace.errors import MailraceError
from mailrace.queue.stores.postgres.database import Database

PAUSE_S = 0.005
"""A queue is told of at most once in this time, and once more at its end if there was cause."""


class Notifier:
    """One statement for all the queues that got jobs while the last one was on its way.

    What cannot be told is forgotten: whoever waits for jobs asks at intervals all the same.

    Args:
        nearby: Called at once with the queues: whoever waits in this process need not hear it
            from the server.
    """

    def __init__(self, database: Database, nearby: Callable[[set[str]], object]) -> None:
        self._database = database
        self._nearby = nearby
        self._untold: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def tell(self, queues: set[str]) -> None:
        """Has the queues be told of, now or at the end of the pause."""
        self._nearby(queues)
        self._untold |= queues
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="mailrace-notify")

    async def close(self) -> None:
        """Waits for what is on its way."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _tell(self) -> None:
        while self._untold:
            queues, self._untold = self._untold, set()
            try:
                await self._database.run("notify", queues=sorted(queues))
            except MailraceError:
                self._untold.clear()
                return
            await asyncio.sleep(PAUSE_S)
