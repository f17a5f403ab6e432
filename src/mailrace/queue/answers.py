"""What a handler may answer instead of a value, and what follows from it."""

import datetime as dt
from dataclasses import dataclass, field

from mailrace.errors import MisuseError
from mailrace.pool.options import Duration


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed for now: to be tried again, as long as there are attempts left.

    Attributes:
        after: So long from now; without it and `until` as the kind's schedule says.
        until: Or at this moment, with a time zone.
        reason: A short text to group by.
    """

    after: Duration | None = None
    reason: str = ""
    until: dt.datetime | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_reason(self)
        if self.after is not None or self.until is not None:
            _check_time(self)


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not yet: to be run later, and no attempt is counted.

    Attributes:
        after: So long from now.
        until: Or at this moment, with a time zone; one of the two.
    """

    after: Duration | None = None
    reason: str = ""
    until: dt.datetime | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_reason(self)
        _check_time(self)


@dataclass(frozen=True, slots=True)
class SlowDown:
    """The far side takes less than it is given: as `Snooze`, and adaptive limits give way."""

    after: Duration | None = None
    reason: str = "slow down"
    until: dt.datetime | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_reason(self)
        _check_time(self)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Not to be done any more, and nobody's fault."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason(self)


@dataclass(frozen=True, slots=True)
class Fail:
    """Failed for good: trying again would not help."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason(self)


Answer = Retry | Snooze | SlowDown | Cancel | Fail
ANSWERS = (Retry, Snooze, SlowDown, Cancel, Fail)


def wait_s(answer: Retry | Snooze | SlowDown, now_s: float) -> float | None:
    """How long to wait from now on, in Unix time; `None`: the answer leaves it to the kind.

    A moment that has passed is now.
    """
    if answer.until is not None:
        return max(0.0, answer.until.timestamp() - now_s)
    return None if answer.after is None else _span_s(answer.after)


def _check_time(answer: Retry | Snooze | SlowDown) -> None:
    name = type(answer).__name__
    until: object = answer.until
    if (answer.after is None) == (until is None):
        given = "neither after nor until" if until is None else "both after and until"
        raise MisuseError(f"{name} has {given}", hint="give one of them")
    if answer.after is not None:
        _span_s(answer.after)
    elif not isinstance(until, dt.datetime) or until.tzinfo is None:
        raise MisuseError(
            f"until of {name} is {until!r}", hint="give a datetime with a time zone, or use after"
        )


def _check_reason(answer: Answer) -> None:
    reason: object = answer.reason
    if not isinstance(reason, str):
        raise MisuseError(
            f"reason of {type(answer).__name__} is {reason!r}", hint="give a short text"
        )


def _span_s(after: object) -> float:
    span_s = after.total_seconds() if isinstance(after, dt.timedelta) else after
    if isinstance(span_s, bool) or not isinstance(span_s, int | float) or not 0 <= span_s < 1e10:
        raise MisuseError(
            f"after is {after!r}", hint="give a time span, zero or more: seconds or a timedelta"
        )
    return float(span_s)
