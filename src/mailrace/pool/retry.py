"""When a job that failed for a while runs again: the one retry calculation of the code base."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, Self

from mailrace.errors import MailraceError, MisuseError, RejectedError
from mailrace.pool.budget import RetryBudget
from mailrace.pool.ranges import LONGEST_S, are_errors, check_number, check_whole

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|min|m|h|d)", re.ASCII)

# How much of the longest delay is left to chance.
_JITTERS: Final = {"full": 1.0, "equal": 0.5, "none": 0.0}
# The longest that `parse` can read.
_DELAY_MAX_S: Final = 1e9 * 86400.0
# More steps of growth than this make no difference to a float.
_STEPS_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """A fixed list of delays: the n-th failure is followed by the n-th delay, the last by none.

    Attributes:
        delays_s: Seconds to wait; empty for a single attempt.
    """

    delays_s: tuple[float, ...] = (300.0, 900.0, 2700.0, 8100.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "delays_s", tuple(self.delays_s))  # a list would not stay as it is
        for delay_s in self.delays_s:
            check_number("delays_s", delay_s, least=0.0, most=_DELAY_MAX_S)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `1s,5s,30s` or `5m,15m,1h`; `none` for a single attempt.

        Raises:
            MisuseError: The text is no list of delays.
        """
        if text.strip().lower() == "none":
            return cls(())
        return cls(tuple(_seconds(part.strip(), text) for part in text.split(",")))

    def delay_s(self, attempts: int, chance: float = 1.0) -> float | None:  # noqa: ARG002 - as Backoff
        """The wait after so many failed attempts; `None` when there are no more.

        Args:
            chance: Without effect: a list has no jitter.
        """
        return self.delays_s[attempts - 1] if 1 <= attempts <= len(self.delays_s) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that grow by a factor up to a cap, spread at random.

    Without jitter, jobs that failed together come back together and fail together. Full jitter
    spreads them best and costs the far side least. (Marc Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.)

    Attributes:
        attempts: All attempts, the first one included.
        first_s: The longest delay after the first failure, in seconds.
        factor: How many times longer the longest delay is after each further failure.
        cap_s: What the longest delay never exceeds, in seconds.
        jitter: `full`: anything from 0 to the longest delay; `equal`: from half of it; `none`:
            always the longest.
    """

    attempts: int = 3
    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 300.0
    jitter: Literal["full", "equal", "none"] = "full"

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, least=1)
        check_number("first_s", self.first_s, least=0.0, most=LONGEST_S)
        check_number("factor", self.factor, least=1.0, most=1e9)
        check_number("cap_s", self.cap_s, least=0.0, most=LONGEST_S)
        if self.jitter not in _JITTERS:
            raise MisuseError(f"jitter is {self.jitter!r}", hint="give full, equal or none")

    def delay_s(self, attempts: int, chance: float = 1.0) -> float | None:
        """The wait after so many failed attempts; `None` when there are no more.

        Args:
            chance: From 0 to 1; if not given, the longest wait.
        """
        if not 1 <= attempts < self.attempts:
            return None
        longest_s = grown_s(self.first_s, self.factor, attempts - 1, self.cap_s)
        return longest_s * (1.0 - _JITTERS[self.jitter] * (1.0 - chance))


class RetryLaterError(MailraceError):
    """Raised by a handler that wants to run again after a time that it knows.

    The attempt counts as a failed one, and the policy's limits hold: attempts, deadline, budget.

    Attributes:
        retry_after: Seconds to wait.
        reason: Why, one line, for logs and outcomes.
    """

    def __init__(self, after_s: float, reason: str = "") -> None:
        check_number("after_s", after_s, least=0.0, most=LONGEST_S)
        super().__init__(reason or f"to be run again in {after_s:g} s")
        self.retry_after = float(after_s)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[float, str]]:
        # A worker process sends its errors pickled, and the base has other arguments.
        return type(self), (self.retry_after, self.reason)


class GiveUpReason(StrEnum):
    """Why there is no further attempt."""

    PERMANENT = "permanent"
    ATTEMPTS = "attempts"
    DEADLINE = "deadline"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAt:
    """The job runs again, at `at_s` on the clock that the decision was given."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The job does not run again."""

    reason: GiveUpReason


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which failures are followed by another attempt, and when.

    Attributes:
        delays: How long to wait, and how often.
        retry_on: Errors that another attempt may help against; `RetryLaterError` is always one.
        never_on: Errors that it cannot help against; stronger than `retry_on`.
    """

    delays: RetrySchedule | Backoff = field(default_factory=Backoff)
    retry_on: tuple[type[Exception], ...] = (Exception,)
    never_on: tuple[type[Exception], ...] = (MisuseError, RejectedError)

    def __post_init__(self) -> None:
        if not isinstance(self.delays, RetrySchedule | Backoff):
            raise MisuseError(f"delays is {self.delays!r}", hint="give a Backoff or RetrySchedule")
        _check_kinds("retry_on", self.retry_on)
        _check_kinds("never_on", self.never_on)

    def decide(
        self,
        attempts: int,
        error: BaseException,
        *,
        now_s: float,
        deadline_s: float | None,
        chance: float,
        budget: RetryBudget | None,
    ) -> RetryAt | GiveUp:
        """What follows a failed attempt.

        The delay that the error asks for replaces the policy's, be it longer or shorter.

        Args:
            attempts: How many failed, this one included.
            error: How it failed.
            now_s: When it failed.
            deadline_s: When the next attempt must have begun, on the same clock; a retry that
                would begin then or later is given up now.
            chance: From 0 to 1, for the jitter.
            budget: Spent from only if everything else speaks for a retry.
        """
        if not self._may_help(error):
            return GiveUp(reason=GiveUpReason.PERMANENT)
        delay_s = self.delays.delay_s(attempts, chance)
        if delay_s is None:
            return GiveUp(reason=GiveUpReason.ATTEMPTS)
        asked_s = asked_delay_s(error)
        at_s = now_s + (delay_s if asked_s is None else asked_s)
        if deadline_s is not None and at_s >= deadline_s:
            return GiveUp(reason=GiveUpReason.DEADLINE)
        if budget is not None and not budget.spend(now_s):
            return GiveUp(reason=GiveUpReason.BUDGET)
        return RetryAt(at_s=at_s)

    def _may_help(self, error: BaseException) -> bool:
        if isinstance(error, self.never_on):
            return False
        return isinstance(error, (*self.retry_on, RetryLaterError))


def asked_delay_s(error: BaseException) -> float | None:
    """The seconds that an error asks to wait, in its attribute `retry_after`.

    Args:
        error: Any; the attribute counts if it is a number of seconds or a `timedelta`, finite and
            not negative.
    """
    try:
        asked: object = getattr(error, "retry_after", None)
        # A `timedelta` is known by its method: modules that decide import nothing that tells time.
        span = getattr(asked, "total_seconds", None)
        if callable(span):
            asked = span()
    except Exception:  # noqa: BLE001 - any class of anybody's; it asks for nothing
        return None
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return None
    return float(asked) if 0 <= asked <= _DELAY_MAX_S else None


def grown_s(first_s: float, factor: float, steps: int, cap_s: float) -> float:
    """`first_s`, made `factor` times longer so many steps, but never above `cap_s`."""
    try:
        return min(cap_s, first_s * factor ** min(steps, _STEPS_MAX))
    except OverflowError:
        return cap_s if first_s else 0.0


def _check_kinds(name: str, kinds: object) -> None:
    if not are_errors(kinds):
        raise MisuseError(f"{name} is {kinds!r}", hint="give a tuple of exception classes")


def _seconds(part: str, whole: str) -> float:
    match = _PATTERN.fullmatch(part)
    if match is None:
        raise MisuseError(
            f"{whole!r} is not a list of delays", hint="write it like 1s,5s,30s or 5m,15m,1h"
        )
    return float(match[1]) * _UNITS_S[match[2]]
