"""Cron expressions: how they are written, and the wall times they name."""

import re
from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from mailrace.errors import MisuseError

_LONGEST_TEXT = 1000
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?:\*|(\w{1,9})(?:-(\w{1,9}))?)(?:/(\d{1,4}))?", re.ASCII)
_EVERY = re.compile(r"@every (\d{1,6})([smh])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class _Field:
    """One place of an expression: which numbers and names may stand there."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def read(self, text: str) -> tuple[int, ...]:
        """The numbers meant by a list such as `1,5-10,*/20`, ascending."""
        values = {value for item in text.split(",") for value in self._item(item)}
        return tuple(sorted(values))

    def _item(self, item: str) -> range:
        match = _ITEM.fullmatch(item)
        if match is None:
            raise self._refused(item, "is not understood")
        first, last, step = match.groups()
        if first is None:
            return range(self.low, self.high + 1, self._step(item, step))
        low = self._number(item, first)
        if last is None:
            if step is not None:
                raise self._refused(item, "has a step and no end", f"{first}-{self.high}/{step}")
            return range(low, low + 1)
        high = self._end(item, last)
        if low > high:
            wrapped = f"{first}-{self.high},{self.low}-{last}"
            raise self._refused(item, "runs backwards", wrapped)
        return range(low, high + 1, self._step(item, step))

    def _number(self, item: str, word: str) -> int:
        if word in self.names:
            return self.low + self.names.index(word)
        if not word.isdigit() or not self.low <= (number := int(word)) <= self.high:
            raise self._refused(item, "is out of place")
        return number

    def _end(self, item: str, word: str) -> int:
        return self._number(item, word)

    def _step(self, item: str, step: str | None) -> int:
        number = 1 if step is None else int(step)
        if not 1 <= number <= self.high:
            raise self._refused(item, f"has a step that is not from 1 to {self.high}")
        return number

    def _refused(self, item: str, problem: str, instead: str = "") -> MisuseError:
        names = f" or names such as {self.names[1]}" if self.names else ""
        usual = f"numbers from {self.low} to {self.high}{names}, as in 2,5 or 2-5 or */2"
        return MisuseError(f"the {self.name} {item!r} {problem}", hint=f"write {instead or usual}")


class _Weekday(_Field):
    """Sunday is 0, and 7 too, so that a range may end with it."""

    def read(self, text: str) -> tuple[int, ...]:
        return tuple(sorted({value % 7 for value in super().read(text)}))

    def _end(self, item: str, word: str) -> int:
        return self.high if word == "sun" else self._number(item, word)


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Weekday("weekday", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """Slots this many seconds apart, counted from the Unix epoch, in every zone the same."""

    every_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """The wall times that an expression of five or six fields names, each field ascending.

    Attributes:
        weekdays: 0 is Sunday.
        either: Whether the day or the weekday is enough. As in cron that is so if neither begins
            with a star; otherwise both must match, also with `*/2`.
        elapsed: Whether the second, minute or hour begins with a star: then the slots follow
            elapsed time where the clock is put forward or back.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either: bool
    elapsed: bool

    @classmethod
    def read(cls, texts: list[str]) -> Self:
        """Reads six fields, the second first."""
        numbers = [place.read(text) for place, text in zip(_FIELDS, texts, strict=True)]
        second, minute, hour, day, month, weekday = numbers
        starred = [text.startswith("*") for text in texts]
        return cls(
            seconds=second,
            minutes=minute,
            hours=hour,
            days=day,
            months=month,
            weekdays=weekday,
            either=not starred[3] and not starred[5],
            elapsed=any(starred[:3]),
        )

    def __post_init__(self) -> None:
        longest = max(_LENGTHS[month - 1] for month in self.months)
        if self.days[0] > longest and not self.either:
            months = ",".join(_MONTHS[month - 1] for month in self.months)
            raise MisuseError(
                f"the day {self.days[0]} never comes in the month {months}",
                hint=f"name a day up to {longest}, or another month",
            )

    def first_wall(self, wall: datetime, last_year: int) -> datetime | None:
        """The first wall time from `wall` on that matches, up to the end of `last_year`."""
        if self._matches_day(wall):
            time = self._first_time(wall.hour, wall.minute, wall.second)
            if time is not None:
                hour, minute, second = time
                return wall.replace(hour=hour, minute=minute, second=second, fold=0)
        day = self._later_day(wall, last_year)
        if day is None:
            return None
        hour, minute, second = self.hours[0], self.minutes[0], self.seconds[0]
        return day.replace(hour=hour, minute=minute, second=second, fold=0)

    def _matches_day(self, wall: datetime) -> bool:
        return wall.month in self.months and self._falls_on(wall.day, wall.isoweekday() % 7)

    def _falls_on(self, day: int, weekday: int) -> bool:
        if self.either:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays

    def _later_day(self, wall: datetime, last_year: int) -> datetime | None:
        here = (wall.year, wall.month)
        for year in range(wall.year, last_year + 1):
            for month in self.months:
                if (year, month) < here:
                    continue
                monday_based, length = monthrange(year, month)
                first = wall.day + 1 if (year, month) == here else 1
                for day in range(first, length + 1):
                    if self._falls_on(day, (monday_based + day) % 7):
                        return wall.replace(year=year, month=month, day=day)
        return None

    def _first_time(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first time of day from this one on."""
        if hour in self.hours:
            if minute in self.minutes and (at := _from(self.seconds, second)) is not None:
                return hour, minute, at
            if (at := _from(self.minutes, minute + 1)) is not None:
                return hour, at, self.seconds[0]
        if (at := _from(self.hours, hour + 1)) is not None:
            return at, self.minutes[0], self.seconds[0]
        return None


@dataclass(frozen=True, slots=True)
class CronExpression:
    """When something is to happen, as people write it; equal if it means the same.

    Attributes:
        text: As it was written, in small letters and with single spaces.
        rule: What it means.
    """

    text: str = field(compare=False)
    rule: Calendar | Interval

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `minute hour day month weekday`, a field for the second before them, or a name.

        A field is a list of numbers, ranges and steps: `0,30`, `9-17`, `*/5`, `10-50/20`. Months
        and weekdays may be named by three letters. Sunday is 0 or 7. Names are `@hourly`,
        `@daily`, `@weekly`, `@monthly`, `@yearly` and, for a plain interval that is counted from
        the Unix epoch, `@every 30s`, `@every 5m` or `@every 2h`.

        Raises:
            MisuseError: The text is no expression, or names a day that never comes.
        """
        if len(text) > _LONGEST_TEXT:
            raise MisuseError(
                f"a cron expression of {len(text)} characters is too long",
                hint=f"use ranges and steps to stay under {_LONGEST_TEXT}",
            )
        words = " ".join(text.lower().split())
        if words.startswith("@every"):
            return cls(words, _interval(words))
        fields = _NICKNAMES.get(words, words).split()
        if words.startswith("@") and words not in _NICKNAMES:
            names = ", ".join([*_NICKNAMES, "@every 30s"])
            raise MisuseError(f"{words!r} is not a known schedule", hint=f"use one of {names}")
        if len(fields) not in {5, 6}:
            raise MisuseError(
                f"the cron expression {text!r} has {len(fields)} fields",
                hint="write five: minute hour day month weekday; or six with the second first",
            )
        return cls(words, Calendar.read(["0", *fields][-6:]))

    def __str__(self) -> str:
        return self.text


def _from(values: tuple[int, ...], low: int) -> int | None:
    at = bisect_left(values, low)
    return values[at] if at < len(values) else None


def _interval(words: str) -> Interval:
    match = _EVERY.fullmatch(words)
    if match is None or int(match[1]) == 0:
        raise MisuseError(
            f"{words!r} is not an interval",
            hint="write @every 30s, @every 5m or @every 2h, with up to six digits",
        )
    return Interval(int(match[1]) * _UNITS_S[match[2]])
