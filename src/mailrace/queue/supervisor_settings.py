"""What a supervisor is set to."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailrace.errors import MisuseError
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.staffing import StaffingSettings


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """How many processes a supervisor keeps, and how patient it is.

    Attributes:
        processes: How many it starts with; one per core if not given.
        staffing: Between which bounds their number changes; none for a fixed number.
        queues: Those that the processes work on, `*` for all: what waits there asks for more.
        name: Unlike that of any other supervisor on the store; host and pid if empty.
        start_limit_s: In a rolling restart: how long a new process may take until it works.
        kill_after_s: After the second signal: what has not ended by then is killed.
    """

    processes: int = field(default_factory=cores)
    staffing: StaffingSettings | None = None
    queues: Sequence[str] = (ALL_QUEUES,)
    name: str = ""
    start_limit_s: float = 60.0
    kill_after_s: float = 10.0

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise MisuseError(f"processes is {self.processes}", hint="give at least 1")
        bounds = self.bounds
        if not bounds.processes_min <= self.processes <= bounds.processes_max:
            raise MisuseError(
                f"processes is {self.processes} and not within processes_min"
                f" {bounds.processes_min} and processes_max {bounds.processes_max}",
                hint="give a number between them",
            )
        for name in ("start_limit_s", "kill_after_s"):
            if not getattr(self, name) > 0:
                raise MisuseError(
                    f"{name} is {getattr(self, name)}", hint="give seconds above zero"
                )

    @property
    def bounds(self) -> StaffingSettings:
        """Between which bounds the number of processes changes."""
        if self.staffing is not None:
            return self.staffing
        return StaffingSettings(processes_min=self.processes, processes_max=self.processes)
