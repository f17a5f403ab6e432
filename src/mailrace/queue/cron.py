"""Cron expressions, the slots of a schedule, and which of them are to be fired.

Times are seconds since the Unix epoch, slots stand on whole seconds, and the present is always an
argument. The calendar is that of the schedule's own zone; where its clock is put forward or back,
cronie sets the example (https://github.com/cronie-crond/cronie, `src/entry.c`: `MIN_STAR` and
`HR_STAR`; `src/cron.c`: the cases `medium` and `negative`; cron(8), "Daylight Saving Time"):

* A fixed time of day comes once a day. One that the clock leaps over comes at the first moment
  after the leap, together with all others of that leap; one that the clock shows twice comes the
  first time.
* With a star in the time of day (`*/5 * * * *`, `0 */2 * * *`, `* 2 * * *`) the schedule follows
  elapsed time: it comes whenever the clock shows a matching time, both times if it shows it twice,
  and not at all if it never does.

Two differences: cron takes leaps of more than three hours for corrections of the clock and drops
what they leap over, and it runs a job for each minute it missed; here a leap is a leap, and one
slot stands for all that it swallowed.
"""

import difflib
import math
import zoneinfo
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from mailrace.errors import MisuseError
from mailrace.queue.cron_expression import Calendar, CronExpression, Interval

__all__ = ["MOST", "CatchUp", "CronExpression", "CronSchedule", "due"]

MOST: Final = 100
"""How many slots are fired at once at most, unless the caller says otherwise."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 6 to 9891: the calendar ends at 9999 and a search looks 40 years ahead.
_EARLIEST_S, _LATEST_S = -6.2e10, 2.5e11
# 29 February falls on a given weekday again after 40 years at the latest, for example on a Sunday
# in 2088 and in 2128.
_SEARCHED_YEARS = 40


class CatchUp(StrEnum):
    """What becomes of the slots that were missed because nobody ran. The stores write these words.

    `none` skips them, `one` fires the latest of them, `all` fires every one.
    """

    NONE = "none"
    ONE = "one"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSchedule:
    """An expression in a zone, and what becomes of its slots that were missed.

    Attributes:
        expression: When.
        zone: The IANA name of the zone whose clock counts, such as `Europe/Berlin`.
        catch_up: Which missed slots are fired later.
        window_s: A slot missed by more than this is never fired; without it there is no limit.
    """

    expression: CronExpression
    zone: str
    catch_up: CatchUp = CatchUp.ONE
    window_s: float | None = None
    _clock: zoneinfo.ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.window_s is not None and not 0.0 <= self.window_s < math.inf:
            raise MisuseError(
                f"window_s {self.window_s} is no length of time",
                hint="give seconds from 0, or None for no limit",
            )
        object.__setattr__(self, "_clock", _zone(self.zone))

    def next_after(self, unix_s: float) -> float | None:
        """The first slot strictly after this moment.

        Returns:
            None if there is none in the 40 calendar years that follow: a time of day that the
            clock leaps over each time it is due.

        Raises:
            MisuseError: The moment is no time in seconds.
        """
        from_s = math.floor(_checked(unix_s)) + 1
        rule = self.expression.rule
        if isinstance(rule, Interval):
            return float(-(-from_s // rule.every_s) * rule.every_s)
        find = self._first_elapsed if rule.elapsed else self._first_fixed
        slot_s = find(rule, from_s, self._wall(from_s).year + _SEARCHED_YEARS)
        return None if slot_s is None else float(slot_s)

    def latest_between(self, after_s: float, until_s: float) -> float | None:
        """The last slot after `after_s` that is not after `until_s`."""
        found_s = self._within(after_s, _checked(until_s))
        if found_s is None:
            return None
        # No slot stands after `late_s`. The steps back from the end double until one has a slot
        # behind it, then the rest is halved: slots at any distance are found in a few dozen steps.
        late_s, leap_s = math.floor(until_s), 1
        while late_s - leap_s > found_s:
            slot_s = self._within(late_s - leap_s, until_s)
            if slot_s is not None:
                found_s = slot_s
                break
            late_s, leap_s = late_s - leap_s, 2 * leap_s
        while late_s > found_s:
            middle_s = int(found_s + late_s) // 2
            slot_s = self._within(middle_s, until_s)
            if slot_s is None:
                late_s = middle_s
            else:
                found_s = slot_s
        return found_s

    def slots_between(self, after_s: float, until_s: float, most: int) -> list[float]:
        """The newest `most` slots after `after_s` and not after `until_s`, the oldest first."""
        slots: list[float] = []
        while len(slots) < most:
            slot_s = self.latest_between(after_s, until_s)
            if slot_s is None:
                break
            slots.append(slot_s)
            until_s = slot_s - 1.0
        return slots[::-1]

    def _within(self, after_s: float, until_s: float) -> float | None:
        slot_s = self.next_after(after_s)
        return slot_s if slot_s is not None and slot_s <= until_s else None

    def _first_fixed(self, rule: Calendar, from_s: int, last_year: int) -> int | None:
        wall = self._wall(from_s)
        if wall.fold:
            # All that the clock shows a second time has had its turn: go on where that ends.
            first_s, _ = self._moments(wall)
            wall = self._wall(self._turn(first_s, from_s) + from_s - first_s)
        found = rule.first_wall(wall, last_year)
        if found is None:
            return None
        first_s, second_s = self._moments(found)
        return first_s if first_s <= second_s else self._turn(second_s, first_s)

    def _first_elapsed(self, rule: Calendar, from_s: int, last_year: int) -> int | None:
        while True:
            wall = self._wall(from_s)
            found = rule.first_wall(wall, last_year)
            if found is None:
                return None
            first_s, second_s = self._moments(found)
            slot_s = first_s if first_s >= from_s else second_s
            _, again_s = self._moments(wall)
            if again_s > from_s and slot_s >= (turn_s := self._turn(from_s, again_s)):
                from_s = turn_s  # the clock goes back before that, and shows some times again
            elif first_s > second_s:
                from_s = self._turn(second_s, first_s)  # the clock never shows that time
            else:
                return slot_s

    def _wall(self, unix_s: int) -> datetime:
        return (_EPOCH + timedelta(seconds=unix_s)).astimezone(self._clock)

    def _moments(self, wall: datetime) -> tuple[int, int]:
        """When the clock shows this: the first and the second time, mostly the same moment.

        For a time that it leaps over, PEP 495 goes on by the offset before and by the one after
        the leap: then the first of the two is the later one, and the leap lies between them.
        """
        return int(wall.replace(fold=0).timestamp()), int(wall.replace(fold=1).timestamp())

    def _turn(self, before_s: int, after_s: int) -> int:
        """The first moment after `before_s` at which the clock has been put forward or back."""
        offset = self._wall(before_s).utcoffset()
        later = range(before_s + 1, after_s + 1)
        return later[bisect_left(later, 1, key=lambda at: self._wall(at).utcoffset() != offset)]


def due(
    schedule: CronSchedule,
    last_slot_s: float | None,
    now_s: float,
    *,
    grace_s: float,
    most: int = MOST,
) -> list[float]:
    """The slots to be fired now, the oldest first.

    The caller keeps the last of them as the next `last_slot_s`, in the transaction that fires
    them. No slot at or before `last_slot_s` ever comes back, so that a clock put back repeats
    nothing.

    Args:
        last_slot_s: The last slot that was fired. For a schedule that never fired, the moment it
            was created; None stands for now: nothing before now is fired.
        grace_s: A slot that is not older than this is on time and always fired. Older ones were
            missed: what becomes of them is the schedule's `catch_up` and `window_s`.
        most: At most so many slots are fired, the newest ones.

    Raises:
        MisuseError: A time is no time in seconds, or `grace_s` or `most` is out of range.
    """
    if not 0.0 <= grace_s < math.inf:
        raise MisuseError(f"grace_s {grace_s} is no length of time", hint="give seconds from 0")
    if most < 1:
        raise MisuseError(f"most {most} lets nothing be fired", hint="give at least 1")
    on_time_s = _checked(now_s) - grace_s
    if last_slot_s is None:
        after_s: float = math.ceil(now_s) - 1
    elif (oldest_s := _oldest(schedule, on_time_s, now_s)) is None:
        after_s = last_slot_s
    else:
        after_s = max(last_slot_s, math.ceil(oldest_s) - 1)
    slots = schedule.slots_between(after_s, now_s, most)
    if schedule.catch_up is not CatchUp.ONE:
        return slots
    missed = bisect_left(slots, on_time_s)
    return slots[max(missed - 1, 0) :]


def _oldest(schedule: CronSchedule, on_time_s: float, now_s: float) -> float | None:
    """From when on slots may be fired; None if any age will do."""
    if schedule.catch_up is CatchUp.NONE:
        return on_time_s
    return None if schedule.window_s is None else min(on_time_s, now_s - schedule.window_s)


def _checked(unix_s: float) -> float:
    if not _EARLIEST_S <= unix_s <= _LATEST_S:
        raise MisuseError(
            f"the moment {unix_s} is out of range",
            hint="give seconds since 1970, not milliseconds",
        )
    return unix_s


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
        near = difflib.get_close_matches(name.lower()[:100], known, n=1)
        hint = f"did you mean {known[near[0]]}?" if near else "use an IANA name like Europe/Berlin"
        raise MisuseError(f"the zone {name[:100]!r} is unknown", hint=hint) from error
