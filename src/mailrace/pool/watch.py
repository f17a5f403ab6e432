"""Watches the process's memory for a pool, and lets the pool react before the kernel does."""

import asyncio
import gc
from typing import TYPE_CHECKING

from mailrace.pool.memory import Ladder, MemorySettings, Rung
from mailrace.pool.outcome import Reason
from mailrace.pool.rss import Cgroup, cgroup_limit_bytes, read_rss_bytes

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer

_EVERY_S = 0.5
# The share of the waiting jobs that goes with each look while memory is used up.
_SHED = 0.25


class Watch:
    """Takes a sample now and then while there is a limit; without one it does nothing at all.

    Attributes:
        rung: How far the pool has gone to save memory.
        used_bytes: As of the last sample.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._ladder: Ladder | None = None
        self._cgroup: Cgroup | None = None
        self._timer: Timer | None = None
        self._may_run = asyncio.Event()
        self._may_run.set()
        self.rung = Rung.NORMAL
        self.used_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """What the process may use; 0 for no limit."""
        return (self._ladder.limit_bytes or 0) if self._ladder else 0

    def check(self, settings: MemorySettings | None) -> None:
        """Finds out whether these limits can be watched.

        Raises:
            UnavailableError: The system does not tell what the process uses.
        """
        if settings is not None and settings.limit_bytes(cgroup_limit_bytes()) is not None:
            read_rss_bytes()

    def change(self, settings: MemorySettings | None) -> None:
        """Begins to watch these limits, or stops watching."""
        self.stop()
        self._ladder = None
        if settings is not None:
            self._cgroup = Cgroup.find() if settings.share_of_cgroup is not None else None
            limit_bytes = self._cgroup.limit_bytes if self._cgroup else None
            self._ladder = Ladder(settings, cgroup_bytes=limit_bytes)
        if self.limit_bytes and not self._engine.closed:
            self._look()
        else:
            self._climb(Rung.NORMAL)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def until_sources_may_run(self) -> None:
        """Returns once there is memory for more from sources."""
        if self.rung >= Rung.STOP_SOURCES:
            await self._engine.waited(self._may_run)

    def _look(self) -> None:
        assert self._ladder is not None
        self._timer = self._engine.timers.at(self._engine.now() + _EVERY_S, self._look)
        self.used_bytes = self._sample()
        self._climb(self._ladder.seen(self.used_bytes))

    def _sample(self) -> int:
        used_bytes = read_rss_bytes()
        if self._cgroup is not None:
            used_bytes = max(used_bytes, self._cgroup.used_bytes())
        return used_bytes

    def _climb(self, rung: Rung) -> None:
        before, self.rung = self.rung, rung
        if rung >= Rung.STOP_SOURCES:
            self._may_run.clear()
        else:
            self._may_run.set()
        if rung > before and rung >= Rung.REFUSE:
            gc.collect()
        if rung is Rung.SHED:
            self._shed()
        if rung is not before:
            self._engine.intake.look()

    def _shed(self) -> None:
        """Gives up a share of the waiting jobs, the latest of the lowest priority first."""
        backlog = self._engine.backlog
        for _ in range(-int(-len(backlog) * _SHED // 1)):
            job = backlog.lowest()
            if job is not None:
                self._engine.settlement.drop(job, Reason.MEMORY)
