"""Hearing that jobs came in: a bell for our own, a look at the file for those of others."""

import sqlite3
from collections.abc import AsyncIterator, Sequence

import msgspec

from mailrace.errors import MailraceError
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import one

_BUSY_S = 0.01
_QUIET_S = 0.05
_BUSY_FOR_S = 5.0


class Wakeups(Base):
    @property
    def listening(self) -> bool:
        return True

    async def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        watch = _Watch(queues)
        bell = self._hung_bell()
        quiet_from_s = 0.0
        try:
            while True:
                busy = self._clock.monotonic_s() < quiet_from_s
                rang = await bell.heard_within(_BUSY_S if busy else _QUIET_S)
                if self._closed:
                    return
                if await self._news(watch) or rang:
                    quiet_from_s = self._clock.monotonic_s() + _BUSY_FOR_S
                    yield
                    await self._clock.sleep_s(_BUSY_S)  # a storm of jobs is one wake-up
        finally:
            self._bells.discard(bell)

    async def _news(self, watch: "_Watch") -> bool:
        try:
            return await self._look(watch.look, self._connection)
        except MailraceError:
            return False  # whoever asks for jobs next is told what is wrong


class _Watch:
    """Compares what others have written with what was there at the last look."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._values = {
            "every": ALL_QUEUES in queues,
            "queues": msgspec.json.encode(queues).decode(),
        }
        self._version: int | None = None
        self._arrivals: int | None = None

    def look(self, connection: sqlite3.Connection) -> bool:
        """Whether another connection has added to the queues since the last look."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        self._version = version
        arrivals: int = one(connection, "arrivals_sum", **self._values)
        news = self._arrivals is not None and arrivals != self._arrivals
        self._arrivals = arrivals
        return news
