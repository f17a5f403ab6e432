"""How a worker goes about its queues."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mailrace.errors import MisuseError
from mailrace.queue.heartbeat import check_lease, heartbeat_of
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.session import LEASE_S
from mailrace.queue.states import FINAL, JobState
from mailrace.queue.upkeep import DEFAULT_KEEP_S


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker goes about its queues.

    Attributes:
        queues: Weights by queue; `*` stands for all that are not named.
        concurrency: Attempts under way at the same time.
        buffer: Claimed jobs that are not begun, at most.
        grace_s: How long attempts under way may take to end when the worker is to stop.
        keep_s: How long final jobs are kept, by state.
        upkeep: Whether this process takes its turn at what somebody has to do for all.
        lease_s: How long its claims hold when nothing is heard of it; then others take over.
        heartbeat_s: How often it tells that it lives, and looks whether others do: 0.1 to 10 and
            less than half of the lease; a fifth of that if not given, at most 5.
        memory_max_bytes: Staying above that with its resident memory, it drains and asks to be
            replaced (`Worker.restart`); `None` for no limit. Linux only.
    """

    queues: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({ALL_QUEUES: 1.0}))
    concurrency: int = 20
    buffer: int = 1000
    grace_s: float = 30.0
    keep_s: Mapping[JobState, float] = field(default_factory=lambda: DEFAULT_KEEP_S)
    upkeep: bool = True
    lease_s: float = LEASE_S
    heartbeat_s: float | None = None
    memory_max_bytes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.queues, Mapping):
            raise MisuseError(f"queues is {self.queues!r}", hint='give weights: {"mail": 1.0}')
        if not self.queues:
            raise MisuseError("queues is empty", hint="name a queue, or '*' for all")
        for name in ("concurrency", "buffer", "memory_max_bytes"):
            value: object = getattr(self, name)
            if value is None and name == "memory_max_bytes":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise MisuseError(f"{name} is {value!r}", hint="give a whole number, at least 1")
        if not self.grace_s >= 0:
            raise MisuseError(f"grace_s is {self.grace_s}", hint="give seconds, zero or more")
        check_lease(self.lease_s, self.heartbeat_s)
        for state in self.keep_s:
            if state not in FINAL:
                raise MisuseError(
                    f"keep_s has {state}, in which no job stays", hint="give final states only"
                )

    @property
    def beat_s(self) -> float:
        """How often it tells that it lives: `heartbeat_s`, or what that is if not given."""
        return heartbeat_of(self.lease_s, self.heartbeat_s)
