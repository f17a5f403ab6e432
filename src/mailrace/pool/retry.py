"""When a job that failed for a while runs again: the one retry calculation of the code base."""

import re
from dataclasses import dataclass
from typing import Self

from mailrace.errors import MisuseError

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|min|m|h|d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """A fixed list of delays: the n-th failure is followed by the n-th delay, the last by none.

    Attributes:
        delays_s: Seconds to wait; empty for a single attempt.
    """

    delays_s: tuple[float, ...] = (300.0, 900.0, 2700.0, 8100.0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `1s,5s,30s` or `5m,15m,1h`; `none` for a single attempt.

        Raises:
            MisuseError: The text is no list of delays.
        """
        if text.strip().lower() == "none":
            return cls(())
        return cls(tuple(_seconds(part.strip(), text) for part in text.split(",")))

    def delay_s(self, attempts: int) -> float | None:
        """The wait after so many failed attempts; `None` when there are no more."""
        return self.delays_s[attempts - 1] if 1 <= attempts <= len(self.delays_s) else None


def _seconds(part: str, whole: str) -> float:
    match = _PATTERN.fullmatch(part)
    if match is None:
        raise MisuseError(
            f"{whole!r} is not a list of delays", hint="write it like 1s,5s,30s or 5m,15m,1h"
        )
    return float(match[1]) * _UNITS_S[match[2]]
