"""Hearing that jobs came in: a bell for our own, a look at the file for those of others."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from mailrace.errors import MailraceError
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import one

# How often it is asked whether something was written to the file of late, a question of a
# microsecond: less often when nothing has come for a while.
_BUSY_S = 0.002
_QUIET_S = 0.02
_BUSY_FOR_S = 5.0
# The time of a file goes by ticks of up to so long: it may have been written to once more.
_TICK_S = 0.012
# What was written is seen when it is on the disk; what was rolled back never is.
_SYNC_S = 1.0
_LOOK_S = 0.05  # in any case
# A storm of jobs is one wake-up.
_STORM_S = 0.005


class Wakeups(Base):
    @property
    def listening(self) -> bool:
        return True

    async def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        watch = _Watch(self.path, queues)
        bell = self._hung_bell()
        now_s = self._clock.monotonic_s
        quiet_from_s = look_at_s = now_s()
        try:
            while True:
                rang = await bell.heard_within(_BUSY_S if now_s() < quiet_from_s else _QUIET_S)
                if self._closed:
                    return
                if not (rang or watch.written_of_late(now_s()) or now_s() >= look_at_s):
                    continue
                look_at_s = now_s() + _LOOK_S
                if await self._news(watch) or rang:
                    quiet_from_s = now_s() + _BUSY_FOR_S
                    yield
                    await self._clock.sleep_s(_STORM_S)
        finally:
            self._bells.discard(bell)

    async def _news(self, watch: "_Watch") -> bool:
        try:
            return await self._look(watch.look)
        except MailraceError:
            return False  # whoever asks for jobs next is told what is wrong


class _Watch:
    """Compares what others have written with what was there at the last look."""

    def __init__(self, path: Path, queues: Sequence[str]) -> None:
        self._log = path.with_name(f"{path.name}-wal")
        self._written_ns = -1
        self._since_s = 0.0
        self._seen = True
        self._values = {
            "every": ALL_QUEUES in queues,
            "queues": msgspec.json.encode(queues).decode(),
        }
        self._version: int | None = None
        self._arrivals: int | None = None

    def written_of_late(self, now_s: float) -> bool:
        """Whether there may be something that no look has seen."""
        try:
            written_ns = self._log.stat().st_mtime_ns
        except OSError:
            return False
        if written_ns != self._written_ns:
            self._written_ns, self._since_s, self._seen = written_ns, now_s, False
        return now_s - self._since_s < (_TICK_S if self._seen else _SYNC_S)

    def look(self, connection: sqlite3.Connection) -> bool:
        """Whether another connection has added to the queues since the last look."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        self._version, self._seen = version, True
        arrivals: int = one(connection, "arrivals_sum", **self._values)
        news = self._arrivals is not None and arrivals != self._arrivals
        self._arrivals = arrivals
        return news
