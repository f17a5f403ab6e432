"""Watches the memory of a worker process, which is to be replaced when it stays above a limit."""

import gc
from dataclasses import dataclass
from typing import Final

from mailrace.clock import Clock
from mailrace.pool.rss import read_rss_bytes
from mailrace.queue.excess import Excess

MEMORY_S: Final = 1.0
"""How often to look."""
_HOLD_S: Final = 5.0
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsedUp:
    """A process stays above its memory limit: it ends what is under way, and is to be replaced.

    Attributes:
        used_bytes: Its resident memory.
        start_bytes: What that was before the first job.
    """

    used_bytes: int
    limit_bytes: int
    start_bytes: int

    @property
    def trouble(self) -> str:
        """The same in one line."""
        used_mib, limit_mib = self.used_bytes / MIB, self.limit_bytes / MIB
        return f"uses {used_mib:.1f} MiB and may use {limit_mib:.1f}: to be replaced"


class MemoryWatch:
    """The resident memory of this process beside its limit.

    Raises:
        UnavailableError: The system does not say what the process uses: it is not Linux.
    """

    def __init__(self, limit_bytes: int, *, clock: Clock) -> None:
        self._excess = Excess(limit_bytes, hold_s=_HOLD_S)
        self._clock = clock
        self._start_bytes = read_rss_bytes()

    def forget(self) -> None:
        """Nobody looks for a while."""
        self._excess.forget()

    def look(self) -> MemoryUsedUp | None:
        """Takes a sample, and collects garbage before it says that the process is to be given up.

        Raises:
            UnavailableError: The system does not say any more.
        """
        if not self._stays_above(read_rss_bytes()):
            return None
        gc.collect()  # costs less than a process, and may be all that is missing
        used_bytes = read_rss_bytes()
        if not self._stays_above(used_bytes):
            return None
        return MemoryUsedUp(
            used_bytes=used_bytes,
            limit_bytes=self._excess.limit_bytes,
            start_bytes=self._start_bytes,
        )

    def _stays_above(self, used_bytes: int) -> bool:
        return self._excess.seen(used_bytes, self._clock.monotonic_s())
