"""How many workers a pool should have: a pure decision about what was seen of it."""

from dataclasses import dataclass, fields
from enum import StrEnum
from math import ceil, isfinite
from typing import Final

from mailrace.errors import MisuseError

NEVER_S: Final = float("-inf")
"""The time of what has not happened yet."""

# A timer that comes a rounding error too early must not be set again for a rounding error.
_AGAIN_MIN_S: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """Between which bounds, and at what, the number of workers changes.

    Attributes:
        workers_min: Workers that stay, whatever there is to do; at least 1.
        workers_max: Workers there are at most; the same as the minimum for a fixed number.
        up_at: So many waiting jobs ask for more workers. Each further `up_at` asks for one more.
        up_wait_s: Seconds that the oldest waiting job may wait before it asks for more workers,
            however few jobs wait.
        down_at: Idle workers from which on those that are idle for long leave; all of them do
            where the whole pool is idle.
        idle_s: Seconds without work after which a worker may leave.
        up_cool_down_s: Least seconds between two increases.
        down_cool_down_s: Least seconds between any change and a decrease.
    """

    workers_min: int = 2
    workers_max: int = 10
    up_at: int = 5
    up_wait_s: float = 1.0
    down_at: int = 2
    idle_s: float = 30.0
    up_cool_down_s: float = 5.0
    down_cool_down_s: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            may_be_zero = field.name.endswith("cool_down_s")
            if not isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                least = "0 or more" if may_be_zero else "more than 0"
                raise MisuseError(f"{field.name} cannot be {value}", hint=f"give {least}")
        if self.workers_min > self.workers_max:
            raise MisuseError(
                f"workers_min is {self.workers_min} and workers_max only {self.workers_max}",
                hint="give a maximum that is not below the minimum",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was seen of a pool.

    Attributes:
        workers: All workers, busy and idle, counted and not remembered; without those that
            were told to leave.
        idle: Those of them without work.
        longest_idle_s: Seconds since the longest idle worker last had work; 0 when none is idle.
        overdue: Workers that have been idle for `idle_s` or longer, if the pool counts them. They
            leave together; otherwise the longest idle one leaves alone.
        queued: Jobs that wait for a worker, without those that may not run yet.
        oldest_wait_s: Seconds for which the oldest of them has waited; 0 when none waits.
        held_back: A rate limit, a breaker, a pause or memory is what holds jobs back, so that
            more workers would wait for the same thing.
        last_up_s: When workers were last added, monotonic seconds.
        last_down_s: When workers were last told to leave, monotonic seconds.
    """

    workers: int
    idle: int = 0
    longest_idle_s: float = 0.0
    overdue: int = 1
    queued: int = 0
    oldest_wait_s: float = 0.0
    held_back: bool = False
    last_up_s: float = NEVER_S
    last_down_s: float = NEVER_S


class ScaleReason(StrEnum):
    """Why the number of workers changes or stays."""

    BELOW_MINIMUM = "below_minimum"
    ABOVE_MAXIMUM = "above_maximum"
    QUEUE = "queue"  # many wait
    WAIT = "wait"  # one waits for long
    IDLE = "idle"  # some have had nothing to do for long
    ENOUGH = "enough"  # nothing asks for a change
    AT_MAXIMUM = "at_maximum"  # more are asked for than there may be
    HELD_BACK = "held_back"  # jobs wait for something that is no worker
    COOLING_DOWN = "cooling_down"  # a change is due as soon as its cool-down is over
    BY_HAND = "by_hand"  # somebody asked for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What to do about the number of workers.

    Attributes:
        change: Workers to add; negative for workers to let go, the longest idle first, so that
            the ones used last stay in use. Beyond the idle ones (only above the maximum) busy
            ones leave after their job.
        reason: Why.
        again_s: Seconds after which to ask again if nothing else happens; `None` when only
            something that happens can change the answer. An idle pool at its minimum gets `None`.
    """

    change: int
    reason: ScaleReason
    again_s: float | None = None


def decide(settings: ScalingSettings, seen: Load, now_s: float) -> Scale:
    """Says how many workers to add or let go.

    The bounds hold at once. Within them:

    - **Up** when no worker is idle, nothing else holds jobs back, the cool-down is over and either
      `up_at` jobs wait or one has waited for `up_wait_s`: by one worker for each `up_at` waiting
      jobs, at least one, at most as many as there are.
    - **Down** when workers have been idle for `idle_s`, at least `down_at` or all of them are idle,
      no job could use them, and no change lies within the cool-down.

    Up needs that none is idle, so that after it a worker has to be idle for `idle_s` anew before
    it leaves: the number does not swing faster than that.

    Each answer replaces the timer: it is to ring after `again_s`, or not at all. Otherwise no job
    needs an answer of its own:

    - Ask at the start and when the settings change, when a worker has died, when nothing holds jobs
      back any more, and when the `up_at`-th job
      begins to wait while none is idle and there is room (the last answer was `COOLING_DOWN`: its
      timer is enough).
    - When a job begins to wait while none is idle and there is room, see that the timer rings
      within `up_wait_s`.
    - When the `down_at`-th worker or the last busy one falls idle and there are more than
      `workers_min`, see that it rings within `idle_s`.

    Args:
        settings: The bounds and thresholds.
        seen: The pool as it is now.
        now_s: Monotonic seconds.
    """
    if seen.workers < settings.workers_min:
        change = settings.workers_min - seen.workers
        again_s = settings.up_cool_down_s if seen.queued else None
        return Scale(change=change, reason=ScaleReason.BELOW_MINIMUM, again_s=_timer(again_s))
    if seen.workers > settings.workers_max:
        change = settings.workers_max - seen.workers
        again_s = settings.down_cool_down_s if seen.idle else None
        return Scale(change=change, reason=ScaleReason.ABOVE_MAXIMUM, again_s=_timer(again_s))
    if seen.idle:
        return _down(settings, seen, now_s)
    if seen.queued:
        return _up(settings, seen, now_s)
    return Scale(change=0, reason=ScaleReason.ENOUGH)


def _up(settings: ScalingSettings, seen: Load, now_s: float) -> Scale:
    if seen.held_back:
        return Scale(change=0, reason=ScaleReason.HELD_BACK)
    many = seen.queued >= settings.up_at
    patience_s = 0.0 if many else settings.up_wait_s - seen.oldest_wait_s
    room = settings.workers_max - seen.workers
    if not room:
        reason = ScaleReason.AT_MAXIMUM if patience_s <= 0 else ScaleReason.ENOUGH
        return Scale(change=0, reason=reason)
    cooling_s = settings.up_cool_down_s - (now_s - seen.last_up_s)
    if patience_s > 0:
        again_s = max(patience_s, cooling_s)
        return Scale(change=0, reason=ScaleReason.ENOUGH, again_s=_timer(again_s))
    if cooling_s > 0:
        return Scale(change=0, reason=ScaleReason.COOLING_DOWN, again_s=_timer(cooling_s))
    change = min(ceil(seen.queued / settings.up_at), seen.workers, room)
    return Scale(
        change=change,
        reason=ScaleReason.QUEUE if many else ScaleReason.WAIT,
        again_s=_timer(settings.up_cool_down_s if change < room else None),
    )


def _down(settings: ScalingSettings, seen: Load, now_s: float) -> Scale:
    spare = min(seen.workers - settings.workers_min, seen.idle)
    enough_idle = seen.idle >= settings.down_at or seen.idle == seen.workers
    if not spare or not enough_idle:
        return Scale(change=0, reason=ScaleReason.ENOUGH)
    if seen.queued and not seen.held_back:
        # Jobs and idle workers are about to meet; what is left idle is looked at later.
        return Scale(change=0, reason=ScaleReason.ENOUGH, again_s=_timer(settings.idle_s))
    busy_lately_s = settings.idle_s - seen.longest_idle_s
    last_change_s = max(seen.last_up_s, seen.last_down_s)
    cooling_s = settings.down_cool_down_s - (now_s - last_change_s)
    if busy_lately_s > 0:
        again_s = max(busy_lately_s, cooling_s)
        return Scale(change=0, reason=ScaleReason.ENOUGH, again_s=_timer(again_s))
    if cooling_s > 0:
        return Scale(change=0, reason=ScaleReason.COOLING_DOWN, again_s=_timer(cooling_s))
    change = min(max(seen.overdue, 1), spare)
    return Scale(
        change=-change,
        reason=ScaleReason.IDLE,
        again_s=_timer(settings.down_cool_down_s if change < spare else None),
    )


def _timer(again_s: float | None) -> float | None:
    return None if again_s is None else max(again_s, _AGAIN_MIN_S)
