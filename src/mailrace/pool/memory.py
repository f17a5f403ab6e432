"""What a pool stops doing as memory runs out: a ladder of rungs, without I/O."""

from dataclasses import dataclass
from enum import IntEnum

from mailrace.errors import MisuseError
from mailrace.pool.ranges import check_number, check_whole


class Rung(IntEnum):
    """How far a pool has gone to save memory; each rung includes those before it."""

    NORMAL = 0
    STOP_SOURCES = 1
    """Nothing more is pulled from sources; what is submitted by hand is still taken."""
    REFUSE = 2
    """Nothing more is taken at all."""
    SHED = 3
    """Waiting jobs are given up, the least important first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """How much memory the process may use and at what share of that the pool reacts.

    The limit is the lesser of the two that are known. Without any nothing is watched: on a machine
    whose container or service has no memory limit, `MemorySettings()` does nothing, and
    `process_max_bytes` is needed. `numbers().memory_limit_bytes` tells what limit there is.

    Attributes:
        process_max_bytes: Most bytes of the process (resident); `None` for no limit of its own.
        share_of_cgroup: The share of the container's limit that the process may use, above 0 and
            at most 1; `None` to leave it alone. The kernel kills at 1; the default leaves a tenth
            for the page cache and for what the kernel holds on behalf of the process. Where
            several processes share a container, give each its part.
        stop_sources: Share of the limit from which on sources are stopped.
        refuse: Share from which on jobs are refused.
        shed: Share from which on waiting jobs are given up; at most 1.
        hysteresis: By how much of the limit use has to fall below a rung's share before the
            pool leaves that rung, so that it does not change with every sample.
    """

    process_max_bytes: int | None = None
    share_of_cgroup: float | None = 0.9
    stop_sources: float = 0.8
    refuse: float = 0.9
    shed: float = 1.0
    hysteresis: float = 0.05

    def __post_init__(self) -> None:
        if self.process_max_bytes is not None:
            check_whole("process_max_bytes", self.process_max_bytes, least=1)
        if self.share_of_cgroup is not None:
            check_number("share_of_cgroup", self.share_of_cgroup, least=0.0, most=1.0)
            _check_above_0("share_of_cgroup", self.share_of_cgroup)
        for name in ("stop_sources", "refuse", "shed", "hysteresis"):
            check_number(name, getattr(self, name), least=0.0, most=1.0)
        _check_above_0("stop_sources", self.stop_sources)
        if not self.stop_sources < self.refuse < self.shed:
            raise MisuseError(
                f"stop_sources {self.stop_sources}, refuse {self.refuse} and shed {self.shed} "
                "are no ladder",
                hint="give rising shares above 0 and at most 1",
            )
        if not self.hysteresis < self.stop_sources:
            raise MisuseError(
                f"hysteresis cannot be {self.hysteresis}",
                hint=f"give 0 or more and less than stop_sources, {self.stop_sources}",
            )

    def limit_bytes(self, cgroup_bytes: int | None) -> int | None:
        """What the process may use.

        Args:
            cgroup_bytes: The container's limit; `None` when it has none.
        """
        limits = [] if self.process_max_bytes is None else [self.process_max_bytes]
        if cgroup_bytes is not None and self.share_of_cgroup is not None:
            limits.append(max(1, int(cgroup_bytes * self.share_of_cgroup)))
        return min(limits, default=None)


def _check_above_0(name: str, share: float) -> None:
    if share == 0:
        raise MisuseError(f"{name} is {share!r}", hint="give a share above 0 and at most 1")


class Ladder:
    """Where on the ladder a process stands.

    It climbs at once, over several rungs if need be, and comes down as use falls: by itself, and
    a rung only when use is below the rung's share less the hysteresis.

    Attributes:
        limit_bytes: What all shares are of; `None` for a ladder that is never climbed.
        rung: The rung as of the last sample.
    """

    __slots__ = ("_climb_bytes", "_leave_bytes", "limit_bytes", "rung")

    def __init__(self, settings: MemorySettings, *, cgroup_bytes: int | None = None) -> None:
        self.rung = Rung.NORMAL
        self.limit_bytes = limit = settings.limit_bytes(cgroup_bytes)
        shares = {
            Rung.SHED: settings.shed,
            Rung.REFUSE: settings.refuse,
            Rung.STOP_SOURCES: settings.stop_sources,
        }
        # From the top, so that the first rung that fits is the highest.
        self._climb_bytes: dict[Rung, float] = {}
        self._leave_bytes: dict[Rung, float] = {}
        if limit is not None:
            for rung, share in shares.items():
                self._climb_bytes[rung] = share * limit
                self._leave_bytes[rung] = (share - settings.hysteresis) * limit

    def seen(self, used_bytes: int) -> Rung:
        """Takes a sample of the bytes in use and says what to do from now on."""
        for rung, climb_bytes in self._climb_bytes.items():
            least_bytes = self._leave_bytes[rung] if rung <= self.rung else climb_bytes
            if used_bytes >= least_bytes:
                self.rung = rung
                return rung
        self.rung = Rung.NORMAL
        return Rung.NORMAL
