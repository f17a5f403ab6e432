"""Named limits over the whole cluster, as values."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from mailrace.pool import RateLimit, Schedule

_PLACEHOLDER: Final = re.compile(r"\{(tenant|process|host)\}")


class LimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as the store keeps it.

    Attributes:
        rates: One or several, such as `10/s, 1000/h`.
        margin: The share that is kept back: 0.1 uses 90 %.
        adaptive: Whether the far side's answers slow it down.
        pace: The share of the rate that is used now; below 1 after the far side said to slow down.
        next_slot_ms: When the next slot that nobody has taken is, Unix milliseconds.
    """

    name: str
    rates: str
    margin: float = 0.0
    adaptive: bool = False
    pace: float = 1.0
    next_slot_ms: float = 0.0


class CommonSlot(msgspec.Struct, frozen=True, kw_only=True):
    """What a departure under several limits at once is told.

    Attributes:
        taken: Whether a slot of each was taken, all for the same moment.
        in_s: When that is, counted from the store's present; or when the last of them is ready.
        grace_s: How long after that moment the slots may still be used.
        interval_s: From one slot to the next of the slowest.
        last: The limit that is ready last.
    """

    taken: bool
    in_s: float
    grace_s: float
    interval_s: float
    last: str


def is_template(name: str) -> bool:
    """Whether a name stands for many: each tenant, process or host has a limit of its own."""
    return _PLACEHOLDER.search(name) is not None


def limit_name(name: str, given: Mapping[str, str]) -> str:
    """The limit that a name with placeholders stands for; what is not given stays as it is."""
    if "{" not in name:
        return name
    return _PLACEHOLDER.sub(lambda found: given.get(found[1], found[0]), name)


def is_made_from(limit: LimitRow, template: LimitRow) -> bool:
    """Whether a limit is one that the template gave its rates, and nobody changed since."""
    parts = [re.escape(part) for part in _PLACEHOLDER.split(template.name)[::2]]
    return (
        limit.name != template.name
        and re.fullmatch(".*".join(parts), limit.name, re.DOTALL) is not None
        and (limit.rates, limit.margin, limit.adaptive)
        == (template.rates, template.margin, template.adaptive)
    )


def schedule_of(limit: LimitRow) -> Schedule:
    """One schedule for all rates of a limit, at its pace.

    The longest interval and the shortest grace of them: whatever it lets go, each would have too.

    Raises:
        MisuseError: The rates or the margin are none.
    """
    schedules = RateLimit.parse(limit.rates, margin=limit.margin).schedules
    longest = max(schedule.interval_s for schedule in schedules)
    shortest = min(schedule.grace_s for schedule in schedules)
    return Schedule(longest, shortest).slowed(limit.pace)
