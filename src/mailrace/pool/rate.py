"""Rates, and the schedule of their slots: the generic cell rate algorithm."""

import re
from dataclasses import dataclass, field
from typing import Self

from mailrace.errors import MisuseError

_UNITS_S = {
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "day": 86400.0,
    "d": 86400.0,
}
_PATTERN = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{1,9})?\s*([a-z]+)\s*", re.IGNORECASE | re.ASCII)

# Arrivals at the far side jitter a little, and it is the far side that counts: the schedule is
# stretched by this share of the window so that the jitter stays inside the limit.
_STRETCH = 1.01
# A timer that fires late by up to this share of the window still uses its slot.
_LATE = 0.005
# The share of the limit that may be made up at once after the sender was held up.
_CATCH_UP = 0.02


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` departures in any sliding window of `window_s` seconds."""

    count: int
    window_s: float

    def __post_init__(self) -> None:
        if self.count < 1 or self.window_s <= 0:
            raise MisuseError(f"the rate {self} allows nothing", hint="give at least 1 a window")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `100/s`, `100/min`, `1000/h`, `50000/day` or `5/10s`.

        Raises:
            MisuseError: The text is no rate.
        """
        match = _PATTERN.fullmatch(text)
        unit_s = _UNITS_S.get(match[3].lower()) if match else None
        if match is None or unit_s is None:
            raise MisuseError(
                f"{text!r} is not a rate", hint="write it like 100/s, 100/min or 1000/h"
            )
        return cls(int(match[1]), unit_s * int(match[2] or 1))

    def keeping_back(self, margin: float) -> "Rate":
        """The rate that leaves this share of it unused."""
        left = self.count * (1.0 - margin)
        count = int(round(left, 6))  # 0.58 * 100 is a hair below 58
        return Rate(count, self.window_s) if count else Rate(1, self.window_s / left)

    def __str__(self) -> str:
        for unit in ("day", "h", "min", "s"):
            if self.window_s == _UNITS_S[unit]:
                return f"{self.count}/{unit}"
        return f"{self.count}/{self.window_s:.15g}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """One or several rates that hold at once, such as `10/s, 100/min, 1000/h`.

    Attributes:
        rates: One for each length of window.
        margin: The share of every window that is kept back: 0.1 uses 90 %.
        used: The rates with the margin taken off.
        schedules: Their slots, in the same order.
    """

    rates: tuple[Rate, ...]
    margin: float = 0.0
    used: tuple[Rate, ...] = field(init=False, repr=False, compare=False)
    schedules: tuple["Schedule", ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.rates:
            raise MisuseError("the limit has no rate", hint="give at least one, like 100/min")
        if not 0.0 <= self.margin < 1.0:
            raise MisuseError(
                f"margin {self.margin} is not a share",
                hint="give at least 0 and less than 1; 0.1 keeps back a tenth",
            )
        self._check_windows()
        used = tuple(rate.keeping_back(self.margin) for rate in self.rates)
        # Derived once here, or a table of limits by key would pay for it with every new key.
        object.__setattr__(self, "used", used)
        object.__setattr__(self, "schedules", tuple(map(Schedule.of, used)))

    def _check_windows(self) -> None:
        seen: dict[float, Rate] = {}
        for rate in self.rates:
            if rate.window_s in seen:
                raise MisuseError(
                    f"{seen[rate.window_s]} and {rate} limit the same window",
                    hint="give one rate for each length of window",
                )
            seen[rate.window_s] = rate

    @classmethod
    def parse(cls, text: str, *, margin: float = 0.0) -> Self:
        """Reads `100/min` or `10/s, 100/min, 1000/h`; `str` gives the text back, no margin.

        Raises:
            MisuseError: A part is no rate, or two are for the same window.
        """
        return cls(rates=tuple(map(Rate.parse, text.split(","))), margin=margin)

    @classmethod
    def of(cls, value: "RateLimit | Rate | str") -> "RateLimit":
        """The limit that is meant by a rate or a text.

        Raises:
            MisuseError: The text is no limit.
        """
        if isinstance(value, RateLimit):
            return value
        if isinstance(value, Rate):
            return cls(rates=(value,))
        return cls.parse(value)

    @property
    def cost_max(self) -> int:
        """What one departure can cost at most, or it would not fit into a window ever."""
        return min(rate.count for rate in self.used)

    def check_cost(self, cost: int) -> None:
        """Refuses what could never leave.

        Raises:
            MisuseError: The cost is below 1 or more than a window holds.
        """
        if cost < 1:
            raise MisuseError(f"a cost of {cost} is none", hint="give at least 1")
        for rate, used in zip(self.rates, self.used, strict=True):
            if cost > used.count:
                margin = f" with a margin of {self.margin:g}" if self.margin else ""
                raise MisuseError(
                    f"a cost of {cost} never fits into {rate}{margin}",
                    hint=f"split the work into parts of at most {self.cost_max}",
                )

    def __str__(self) -> str:
        return ", ".join(map(str, self.rates))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The slots at which a rate lets departures go, for everybody who shares its state.

    The state is one number, the time of the next free slot. A slot taken at time `t` may be used
    from `t` to `t + grace_s`; later it is lost. With a burst of `b` slots inside that grace, slots
    stand at least `window / (count - b + 1)` apart, so that no window ever holds more than
    `count`: the burst is part of the limit and not on top of it. (GCRA, ITU-T I.371, with its
    tolerance subtracted from the rate.)

    What costs `c` slots and leaves at one instant `t` waits for the last of them: it may leave
    when the next free slot is `c - 1` intervals past, and takes slots from `t - grace_s` on. Then
    a window holds no more than `count` of any mixture of costs up to `count`. Let departures of
    `s` slots together stand between the first at `t` and the last, of cost `c`, at `u`. The first
    left the state no lower than `t - grace_s` plus its own slots, so before the last it is at
    least `t - grace_s + (s - c) * interval_s`; the last waited until `c - 1` intervals after it:
    `(s - 1) * interval_s <= u - t + grace_s`. With `u - t` less than the window, `s <= count`.
    """

    interval_s: float
    grace_s: float

    @classmethod
    def of(cls, rate: Rate) -> Self:
        burst = max(1, int(rate.count * _CATCH_UP))
        interval_s = rate.window_s * _STRETCH / (rate.count - burst + 1)
        return cls(interval_s, (burst - 1) * interval_s + _LATE * rate.window_s)

    def slowed(self, factor: float) -> "Schedule":
        """The schedule at this share of its rate; what it lets go, this one would have too."""
        return self if factor == 1.0 else Schedule(self.interval_s / factor, self.grace_s)

    def ready_s(self, next_slot_s: float, slots: int) -> float:
        """When so many slots may be used together: when the last of them has come."""
        return next_slot_s + (slots - 1) * self.interval_s

    def take(self, next_slot_s: float, *, from_s: float, slots: int = 1) -> tuple[float, float]:
        """Takes `slots` slots in a row, none before `from_s`.

        Args:
            next_slot_s: The state.
            from_s: `grace_s` ago for a slot that is used at once; now for slots that still have
                to travel to their user, or the first would be lost on the way.

        Returns:
            The first one's time and the new state.
        """
        # max() would be a third of what an uncontended departure through a limit costs.
        first_s = next_slot_s if next_slot_s > from_s else from_s  # noqa: FURB136
        return first_s, first_s + slots * self.interval_s
