"""How many processes a supervisor should run: a pure decision about what was seen of the work."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from math import inf, isfinite
from typing import Final

from mailrace.errors import MisuseError
from mailrace.queue.figures import MINUTE_MS, QueueFigures, Throughput
from mailrace.queue.processes import ProcessRow, ProcessState
from mailrace.queue.queuerules import ALL_QUEUES

# Hands that are used to this share have nothing left to give; work that the other processes
# could do with half of theirs needs one process less. Between the two lies what a change does.
_BUSY_SHARE: Final = 0.8
_SPARE_SHARE: Final = 0.5
# The last whole minute lies so far back at most: before that a change does not show in it.
_LAG_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StaffingSettings:
    """Between which bounds, and at what, the number of processes changes.

    Attributes:
        processes_min: Processes that stay, whatever there is to do.
        processes_max: Processes there are at most; the same as the minimum for a fixed number.
        wait_up_s: A due job that has waited longer asks for more, where no hand is free for it.
        wait_down_s: So long nothing was due, and the others had hands enough, before one leaves.
        target_per_hour: Jobs that should end in an hour, over all processes; fewer ask for more,
            where jobs are due and no hand is free. `None` for no target.
        up_cool_down_s: Least seconds between any change and an increase.
        down_cool_down_s: Least seconds between any change and a decrease.
    """

    processes_min: int = 1
    processes_max: int = 1
    wait_up_s: float = 10.0
    wait_down_s: float = 60.0
    target_per_hour: float | None = None
    up_cool_down_s: float = 15.0
    down_cool_down_s: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            may_be_zero = field.name.endswith("cool_down_s")
            if not isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                least = "0 or more" if may_be_zero else "more than 0"
                raise MisuseError(f"{field.name} cannot be {value}", hint=f"give {least}")
        if self.processes_min > self.processes_max:
            raise MisuseError(
                f"processes_min is {self.processes_min} and processes_max only"
                f" {self.processes_max}",
                hint="give a maximum that is not below the minimum",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was seen of a supervisor's queues and processes.

    Attributes:
        processes: Those that there are to be.
        working: Those of them that work.
        hands: Attempts that these can have under way at the same time.
        in_hand: Attempts that they have.
        due: Waiting jobs of the queues whose time has come.
        oldest_due_s: How long the first of them has waited.
        ended_per_hour: The rate at which jobs ended in the last whole minute.
    """

    processes: int
    working: int
    hands: int = 0
    in_hand: int = 0
    due: int = 0
    oldest_due_s: float = 0.0
    ended_per_hour: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether all of them work, and with hardly a hand free."""
        return self.working >= self.processes and 0 < self.hands * _BUSY_SHARE <= self.in_hand

    @property
    def can_spare(self) -> bool:
        """Whether nothing waits, and one process less would still be far from busy."""
        others = self.hands * (self.processes - 1) / max(1, self.processes)
        return self.due == 0 and self.in_hand <= others * _SPARE_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class StaffingState:
    """What one decision leaves for the next.

    Attributes:
        changed_s: When the number last changed, also by hand.
        spare_since_s: Since when a process could be spared without a break; `None`: it cannot.
    """

    changed_s: float = -inf
    spare_since_s: float | None = None


class StaffingReason(StrEnum):
    """Why the number of processes changes or stays."""

    BELOW_MINIMUM = "below the minimum"
    ABOVE_MAXIMUM = "above the maximum"
    WAIT = "jobs wait too long"
    TARGET = "throughput is below the target"
    SPARE = "nothing is due and hands are idle"
    ENOUGH = "enough"
    AT_MAXIMUM = "more are asked for than there may be"
    COOLING_DOWN = "it changed a short time ago"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many processes there are to be, why, and what the next decision is to know."""

    processes: int
    reason: StaffingReason
    state: StaffingState


def decide(load: Load, settings: StaffingSettings, now_s: float, state: StaffingState) -> Decision:
    """Says how many processes there are to be.

    The bounds hold at once. Within them more come, half as many again, when those that are there
    have their hands full and a job has waited too long or too little gets done. One leaves when
    nothing was due for a while and the others have hands enough for twice what there is. Jobs that
    wait beside idle hands wait for something that is no process: a limit, a pause, a key.

    Args:
        now_s: Monotonic seconds.
    """
    seen = replace(state, spare_since_s=_spare_since_s(load, now_s, state))
    if load.processes < settings.processes_min:
        return _change(settings.processes_min, StaffingReason.BELOW_MINIMUM, now_s)
    if load.processes > settings.processes_max:
        return _change(settings.processes_max, StaffingReason.ABOVE_MAXIMUM, now_s)
    reason = _asks_for_more(load, settings, now_s - state.changed_s)
    if reason is not None:
        return _up(load, settings, reason, now_s, seen)
    spare_s = 0.0 if seen.spare_since_s is None else now_s - seen.spare_since_s
    if spare_s < settings.wait_down_s or load.processes == settings.processes_min:
        return _stay(load, StaffingReason.ENOUGH, seen)
    if now_s - state.changed_s < settings.down_cool_down_s:
        return _stay(load, StaffingReason.COOLING_DOWN, seen)
    return _change(load.processes - 1, StaffingReason.SPARE, now_s)


def _spare_since_s(load: Load, now_s: float, state: StaffingState) -> float | None:
    if not load.can_spare:
        return None
    return now_s if state.spare_since_s is None else state.spare_since_s


def _asks_for_more(
    load: Load, settings: StaffingSettings, unchanged_s: float
) -> StaffingReason | None:
    if not load.due or not load.is_busy:
        return None
    if load.oldest_due_s > settings.wait_up_s:
        return StaffingReason.WAIT
    target = settings.target_per_hour
    if target is not None and load.ended_per_hour < target and unchanged_s >= _LAG_S:
        return StaffingReason.TARGET
    return None


def _up(
    load: Load,
    settings: StaffingSettings,
    reason: StaffingReason,
    now_s: float,
    seen: StaffingState,
) -> Decision:
    if load.processes == settings.processes_max:
        return _stay(load, StaffingReason.AT_MAXIMUM, seen)
    if now_s - seen.changed_s < settings.up_cool_down_s:
        return _stay(load, StaffingReason.COOLING_DOWN, seen)
    more = load.processes + max(1, load.processes // 2)
    return _change(min(more, settings.processes_max), reason, now_s)


def _change(processes: int, reason: StaffingReason, now_s: float) -> Decision:
    return Decision(processes=processes, reason=reason, state=StaffingState(changed_s=now_s))


def _stay(load: Load, reason: StaffingReason, seen: StaffingState) -> Decision:
    return Decision(processes=load.processes, reason=reason, state=seen)


def load_of(
    queues: Sequence[str],
    figures: Sequence[QueueFigures],
    throughput: Sequence[Throughput],
    rows: Sequence[ProcessRow],
    *,
    processes: int,
    now_ms: int,
) -> Load:
    """What the store's figures say of some queues and of the processes that work on them.

    Args:
        queues: Their names; `*` means all.
        rows: The processes of the supervisor.
        processes: Those that there are to be.
        now_ms: By the store's clock.
    """
    mine = [row for row in figures if ALL_QUEUES in queues or row.queue in queues]
    working = [row for row in rows if not row.expired and row.vitals.state is ProcessState.WORKING]
    minute_ms = now_ms - now_ms % MINUTE_MS - MINUTE_MS
    ended = sum(
        part.completed + part.failed
        for part in throughput
        if (ALL_QUEUES in queues or part.queue in queues)
        and minute_ms <= part.start_ms < minute_ms + MINUTE_MS
    )
    return Load(
        processes=processes,
        working=len(working),
        hands=sum(row.concurrency for row in working),
        in_hand=sum(row.vitals.in_hand for row in working),
        due=sum(row.due for row in mine),
        oldest_due_s=max((row.oldest_due_ms for row in mine if row.due), default=0) / 1000,
        ended_per_hour=ended * 60.0,
    )
