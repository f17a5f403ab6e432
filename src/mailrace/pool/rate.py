"""A rate and its schedule of slots: the generic cell rate algorithm, without clock or I/O."""

import re
from dataclasses import dataclass
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

    def __str__(self) -> str:
        for unit in ("day", "h", "min", "s"):
            if self.window_s == _UNITS_S[unit]:
                return f"{self.count}/{unit}"
        return f"{self.count}/{self.window_s:.15g}s"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The slots at which a rate lets departures go, for everybody who shares its state.

    The state is one number, the time of the next free slot. A slot taken at time `t` may be used
    from `t` to `t + grace_s`; later it is lost. With a burst of `b` slots inside that grace, slots
    stand at least `window / (count - b + 1)` apart, so that no window ever holds more than
    `count`: the burst is part of the limit and not on top of it. (GCRA, ITU-T I.371, with its
    tolerance subtracted from the rate.)
    """

    interval_s: float
    grace_s: float

    @classmethod
    def of(cls, rate: Rate) -> Self:
        burst = max(1, int(rate.count * _CATCH_UP))
        interval_s = rate.window_s * _STRETCH / (rate.count - burst + 1)
        return cls(interval_s, (burst - 1) * interval_s + _LATE * rate.window_s)

    def take(self, next_slot_s: float, *, from_s: float, slots: int = 1) -> tuple[float, float]:
        """Takes `slots` slots in a row, none before `from_s`.

        Args:
            next_slot_s: The state.
            from_s: `grace_s` ago for a slot that is used at once; now for slots that still have
                to travel to their user, or the first would be lost on the way.

        Returns:
            The first one's time and the new state.
        """
        first_s = max(next_slot_s, from_s)
        return first_s, first_s + slots * self.interval_s
