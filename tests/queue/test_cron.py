"""Cron expressions, the slots of schedules, and which slots are due."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.queue.cron import CatchUp, CronExpression, CronSchedule, due

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
# Moments at which a clock is put forward or back: by an hour, half an hour, two hours, a day.
TURNS = [
    (BERLIN, "2025-03-30T01:00"),
    (BERLIN, "2025-10-26T01:00"),
    (NEW_YORK, "2025-03-09T07:00"),
    (NEW_YORK, "2025-11-02T06:00"),
    (LORD_HOWE, "2025-04-05T15:00"),
    (LORD_HOWE, "2025-10-04T15:30"),
    ("Antarctica/Troll", "2025-03-30T01:00"),
    ("Antarctica/Troll", "2025-10-26T01:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Europe/Dublin", "2025-10-26T01:00"),
    ("Asia/Kolkata", "2025-03-30T01:00"),
    ("UTC", "2024-02-29T00:00"),
]
BOUNDS = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day": (1, 31),
    "month": (1, 12),
    "weekday": (0, 6),
}


def schedule(text: str, zone: str = "UTC", catch_up: CatchUp = CatchUp.ALL) -> CronSchedule:
    return CronSchedule(expression=CronExpression.parse(text), zone=zone, catch_up=catch_up)


def moment(text: str) -> float:
    """The Unix time of an ISO text, in UTC unless it says otherwise."""
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def shown(times: list[float], zone: str) -> list[str]:
    return [datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for at in times]


def walk(plan: CronSchedule, after_s: float, until_s: float) -> list[float]:
    slots = []
    slot_s = plan.next_after(after_s)
    while slot_s is not None and slot_s <= until_s:
        slots.append(slot_s)
        slot_s = plan.next_after(slot_s)
    return slots


# What an expression means.


@pytest.mark.parametrize(
    ("text", "after", "slots"),
    [
        ("*/20 * * * *", "2025-01-01T00:00", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("30 9-17/4 * * *", "2025-01-01T10:00", ["01-01 13:30", "01-01 17:30", "01-02 09:30"]),
        ("0 0 31 * *", "2025-01-31T00:00", ["03-31 00:00", "05-31 00:00", "07-31 00:00"]),
        ("0 0 29 2 *", "2025-01-01T00:00", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("0 0 * * 0", "2025-01-01T00:00", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("0 0 * * 7", "2025-01-01T00:00", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("0 0 * * FRI-Sun", "2025-01-01T00:00", ["01-03 00:00", "01-04 00:00", "01-05 00:00"]),
        ("0 0 * * sun-mon", "2025-01-01T00:00", ["01-05 00:00", "01-06 00:00", "01-12 00:00"]),
        ("0 0 1 Jan,jul *", "2025-01-01T00:00", ["07-01 00:00", "01-01 00:00", "07-01 00:00"]),
        # Both restricted: either is enough. The 13th of January 2025 is a Monday.
        ("0 0 13 * 5", "2025-01-04T00:00", ["01-10 00:00", "01-13 00:00", "01-17 00:00"]),
        # A field that begins with a star does not count as restricted: both must match.
        ("0 0 */2 * 5", "2025-01-01T00:00", ["01-03 00:00", "01-17 00:00", "01-31 00:00"]),
        ("0 0 31 2 mon", "2025-02-01T00:00", ["02-03 00:00", "02-10 00:00", "02-17 00:00"]),
        ("@hourly", "2025-01-01T00:00", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
        ("@daily", "2025-01-01T00:00", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("@weekly", "2025-01-01T00:00", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("@monthly", "2025-01-01T00:00", ["02-01 00:00", "03-01 00:00", "04-01 00:00"]),
        ("@yearly", "2025-01-01T00:00", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
        ("@every 2h", "2025-01-01T00:00", ["01-01 02:00", "01-01 04:00", "01-01 06:00"]),
        ("@every 7m", "1970-01-01T00:00", ["01-01 00:07", "01-01 00:14", "01-01 00:21"]),
    ],
)
def test_an_expression_names_these_slots(text: str, after: str, slots: list[str]) -> None:
    plan = schedule(text)
    found: list[float] = [moment(after)]
    for _ in slots:
        slot_s = plan.next_after(found[-1])
        assert slot_s is not None
        found.append(slot_s)
    assert [at.removesuffix("+0000") for at in shown(found[1:], "UTC")] == slots


def test_seconds_stand_first() -> None:
    plan = schedule("*/20 59 23 31 12 *")
    end = moment("2026-01-01T00:00")
    assert walk(plan, moment("2025-06-01T00:00"), end) == [end - 60, end - 40, end - 20]
    assert walk(schedule("@every 90s"), 0.5, 300.0) == [90.0, 180.0, 270.0]


def test_leap_days_skip_the_century_that_is_none() -> None:
    plan = schedule("0 0 29 2 *")
    assert plan.next_after(moment("2096-02-29T00:00")) == moment("2104-02-29T00:00")
    # A leap day on a Sunday, which comes again after 40 years at the latest.
    plan = schedule("0 0 29 2 */7")
    assert plan.next_after(moment("2060-02-29T00:00")) == moment("2088-02-29T00:00")
    assert plan.next_after(moment("2088-02-29T00:00")) == moment("2128-02-29T00:00")


def test_a_slot_is_strictly_after_the_moment() -> None:
    plan = schedule("* * * * *")
    assert [plan.next_after(at) for at in (59.0, 59.999, 60.0, 60.001)] == [60, 60, 120, 120]
    assert plan.next_after(-0.5) == 0


def test_the_latest_slot_is_found_from_any_distance() -> None:
    plan = schedule("*/5 * * * *")
    for until_s in range(3000, 3700):
        assert plan.latest_between(0.0, until_s + 0.5) == until_s // 300 * 300
        assert plan.latest_between(until_s - 100, until_s) == (
            until_s // 300 * 300 if until_s % 300 < 100 else None
        )


# Where the clock is put forward or back.

SPRING, AUTUMN = "2025-03-29T12:00", "2025-10-25T12:00"


@pytest.mark.parametrize(
    ("zone", "text", "from_utc", "slots"),
    [
        (BERLIN, "30 2 * * *", SPRING, ["03-30 03:00+0200", "03-31 02:30+0200"]),
        (BERLIN, "0,15,30 2 * * *", SPRING, ["03-30 03:00+0200", "03-31 02:00+0200"]),
        (BERLIN, "0 2,3 * * *", SPRING, ["03-30 03:00+0200", "03-31 02:00+0200"]),
        (BERLIN, "0 3 * * *", SPRING, ["03-30 03:00+0200", "03-31 03:00+0200"]),
        (BERLIN, "30 2 30 3 *", SPRING, ["03-30 03:00+0200"]),
        (BERLIN, "0 * * * *", "2025-03-29T23:30", ["03-30 01:00+0100", "03-30 03:00+0200"]),
        (BERLIN, "*/30 2 * * *", SPRING, ["03-31 02:00+0200", "03-31 02:30+0200"]),
        (BERLIN, "*/30 30 2 * * *", SPRING, ["03-31 02:30+0200", "03-31 02:30+0200"]),
        (BERLIN, "59 59 2 * * *", SPRING, ["03-30 03:00+0200", "03-31 02:59+0200"]),
        (BERLIN, "* * * * *", "2025-10-26T00:59:59", ["10-26 02:00+0100", "10-26 02:01+0100"]),
        (BERLIN, "* * * * *", "2025-10-26T00:59:58", ["10-26 02:00+0100", "10-26 02:01+0100"]),
        (BERLIN, "30 2 * * *", AUTUMN, ["10-26 02:30+0200", "10-27 02:30+0100"]),
        (BERLIN, "0 2 * * *", "2025-10-26T01:30", ["10-27 02:00+0100", "10-28 02:00+0100"]),
        (BERLIN, "45 2 * * *", "2025-10-26T01:30", ["10-27 02:45+0100", "10-28 02:45+0100"]),
        (BERLIN, "0 3 * * *", "2025-10-26T01:30", ["10-26 03:00+0100", "10-27 03:00+0100"]),
        (
            BERLIN,
            "*/30 * * * *",
            "2025-10-26T00:15",
            [*("10-26 02:30+0200", "10-26 02:00+0100", "10-26 02:30+0100", "10-26 03:00+0100")],
        ),
        (BERLIN, "30 */2 * * *", "2025-10-26T00:00", ["10-26 02:30+0200", "10-26 02:30+0100"]),
        (NEW_YORK, "15 2 * * sun", "2025-03-08T12:00", ["03-09 03:00-0400", "03-16 02:15-0400"]),
        (NEW_YORK, "15 1 * * sun", "2025-11-01T12:00", ["11-02 01:15-0400", "11-09 01:15-0500"]),
        (NEW_YORK, "0 0 1 1 *", "2025-11-02T05:30", ["01-01 00:00-0500", "01-01 00:00-0500"]),
        # Lord Howe Island moves by half an hour.
        (LORD_HOWE, "15 2 * * *", "2025-10-04T00:00", ["10-05 02:30+1100", "10-06 02:15+1100"]),
        (LORD_HOWE, "45 2 * * *", "2025-10-04T00:00", ["10-05 02:45+1100", "10-06 02:45+1100"]),
        (LORD_HOWE, "45 1 * * *", "2025-04-05T00:00", ["04-06 01:45+1100", "04-07 01:45+1030"]),
        (LORD_HOWE, "15 1 * * *", "2025-04-05T00:00", ["04-06 01:15+1100", "04-07 01:15+1030"]),
        (LORD_HOWE, "45 * * * *", "2025-04-05T14:30", ["04-06 01:45+1100", "04-06 01:45+1030"]),
        # Samoa had no 30 December 2011.
        ("Pacific/Apia", "0 9 30 12 *", "2011-12-01T00:00", ["12-31 00:00+1400"]),
        ("Asia/Kolkata", "30 2 * * *", SPRING, ["03-30 02:30+0530", "03-31 02:30+0530"]),
    ],
)
def test_the_clock_may_be_put_forward_or_back(
    zone: str, text: str, from_utc: str, slots: list[str]
) -> None:
    plan, found = schedule(text, zone), [moment(from_utc)]
    for _ in slots:
        found.append(plan.next_after(found[-1]) or math.nan)
    assert shown(found[1:], zone) == slots


def test_a_star_in_the_time_of_day_decides_and_not_how_many_values_it_stands_for() -> None:
    night = (moment("2025-10-25T23:30"), moment("2025-10-26T02:30"))
    # 2:00, 2:00 again and 3:00; the fixed hours have 2:00 once.
    assert len(walk(schedule("0 * * * *", BERLIN), *night)) == 3
    assert len(walk(schedule("0 0-23 * * *", BERLIN), *night)) == 2


def test_a_schedule_that_the_clock_leaps_over_each_time_never_comes() -> None:
    # The second Sunday in March, when New York leaps from 2:00 to 3:00.
    assert schedule("*/5 2 8-14 3 */7", NEW_YORK).next_after(moment("2025-01-01T00:00")) is None
    assert due(schedule("*/5 2 8-14 3 */7", NEW_YORK), 1.7e9, 1.8e9, grace_s=1.0) == []


# Against a walk through every minute or second.


@dataclass(frozen=True)
class Case:
    """An expression, and what the test knows about it without having read it."""

    text: str
    fields: dict[str, tuple[str, frozenset[int]]]

    @property
    def elapsed(self) -> bool:
        return any(self.starred(name) for name in ("second", "minute", "hour"))

    @property
    def either(self) -> bool:
        return not self.starred("day") and not self.starred("weekday")

    @property
    def never(self) -> bool:
        """Whether none of its days is in any of its months."""
        short = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
        longest = max(short.get(month, 31) for month in self.fields["month"][1])
        return not self.either and min(self.fields["day"][1]) > longest

    def starred(self, name: str) -> bool:
        return self.fields[name][0].startswith("*")

    def matches(self, wall: datetime) -> bool:
        return (
            wall.minute in self.fields["minute"][1]
            and wall.hour in self.fields["hour"][1]
            and wall.second in self.fields["second"][1]
            and wall.month in self.fields["month"][1]
            and self.matches_day(wall)
        )

    def matches_day(self, wall: datetime) -> bool:
        day = wall.day in self.fields["day"][1]
        weekday = wall.isoweekday() % 7 in self.fields["weekday"][1]
        return (day or weekday) if self.either else (day and weekday)


@st.composite
def items(draw: st.DrawFn, name: str) -> tuple[str, frozenset[int]]:
    low, high = BOUNDS[name]
    first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    step = draw(st.integers(1, high))
    return draw(
        st.sampled_from(
            [
                (f"{first}", frozenset({first})),
                (f"{first:02}", frozenset({first})),
                (f"{first}-{last}", frozenset(range(first, last + 1))),
                (f"{first}-{last}/{step}", frozenset(range(first, last + 1, step))),
            ]
        )
    )


@st.composite
def places(draw: st.DrawFn, name: str) -> tuple[str, frozenset[int]]:
    low, high = BOUNDS[name]
    everything = range(low, high + 1)
    step = draw(st.integers(1, high))
    stars = [("*", frozenset(everything)), (f"*/{step}", frozenset(everything[::step]))]
    listed = draw(st.lists(items(name), min_size=1, max_size=3))
    numbers = frozenset[int]().union(*(found for _, found in listed))
    plain = (",".join(text for text, _ in listed), numbers)
    return draw(st.sampled_from([*stars, plain, plain]))


@st.composite
def cases(draw: st.DrawFn, *, seconds: bool, calendar: bool = True) -> Case:
    fields = {name: draw(places(name)) for name in BOUNDS}
    if not seconds:
        fields["second"] = ("0", frozenset({0}))
    if not calendar or draw(st.booleans()):  # or most cases would have no slot near a turn
        for name in ("day", "month", "weekday"):
            low, high = BOUNDS[name]
            fields[name] = ("*", frozenset(range(low, high + 1)))
    texts = [text for text, _ in fields.values()]
    return Case(" ".join(texts if seconds else texts[1:]), fields)


def parsed(case: Case, zone: str) -> CronSchedule:
    assume(not case.never)
    return schedule(case.text, zone)


@cache
def walls(zone: str, start_s: int, end_s: int, step_s: int) -> list[tuple[int, datetime]]:
    """What the clock shows, step by step."""
    return [
        (at, datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None))
        for at in range(start_s, end_s + 1, step_s)
    ]


def oracle(case: Case, shows: list[tuple[int, datetime]], step: timedelta) -> list[float]:
    """Cron as a loop: looks at the clock every step and remembers how far it has been."""
    slots: list[float] = []
    seen = shows[0][1]
    for at, wall in shows[1:]:
        if case.elapsed:
            fires = case.matches(wall)
        else:
            missed = range(1, (wall - seen) // step + 1)
            fires = any(case.matches(seen + step * number) for number in missed)
            seen = max(seen, wall)
        if fires:
            slots.append(float(at))
    return slots


@settings(max_examples=150, deadline=None)
@given(
    case=cases(seconds=False),
    turn=st.sampled_from(TURNS),
    before_s=st.integers(-7200, 90_000),
    after_s=st.integers(0, 120_000),
    most=st.integers(0, 30),
)
def test_the_slots_are_those_of_a_walk_through_every_minute(
    case: Case, turn: tuple[str, str], before_s: int, after_s: int, most: int
) -> None:
    zone, turn_s = turn[0], int(moment(turn[1]))
    plan = parsed(case, zone)
    start_s, end_s = turn_s - before_s, turn_s + after_s
    shows = walls(zone, turn_s - 52 * 3600, turn_s + 2000 * 60, 60)
    slots = oracle(case, shows, timedelta(minutes=1))
    expected = [at for at in slots if start_s < at <= end_s]
    assert walk(plan, start_s, end_s) == expected
    assert plan.slots_between(start_s, end_s, most) == (expected[-most:] if most else [])
    assert plan.latest_between(start_s, end_s) == (expected[-1] if expected else None)


@settings(max_examples=25, deadline=None)
@given(
    case=cases(seconds=True, calendar=False),
    turn=st.sampled_from([turn for turn in TURNS if turn[0] in {BERLIN, LORD_HOWE, NEW_YORK}]),
)
def test_the_slots_are_those_of_a_walk_through_every_second(
    case: Case, turn: tuple[str, str]
) -> None:
    zone, turn_s = turn[0], int(moment(turn[1]))
    plan = parsed(case, zone)
    shows = walls(zone, turn_s - 3900, turn_s + 4500, 1)
    expected = oracle(case, shows, timedelta(seconds=1))
    assert walk(plan, shows[0][0], shows[-1][0]) == expected


@settings(max_examples=100, deadline=None)
@given(case=cases(seconds=False), year=st.integers(1970, 2399))
def test_the_days_are_those_of_a_walk_through_the_calendar(case: Case, year: int) -> None:
    noon = case.fields | {"minute": ("0", frozenset({0})), "hour": ("12", frozenset({12}))}
    case = Case("0 12 " + " ".join(case.text.split()[2:]), noon)
    plan = parsed(case, "UTC")
    start = datetime(year, 1, 1, 12, tzinfo=UTC)
    days = [start + timedelta(days=number) for number in range(5 * 365)]
    expected = [day.timestamp() for day in days if case.matches(day)]
    assert walk(plan, days[0].timestamp() - 1, days[-1].timestamp()) == expected


@given(
    case=cases(seconds=True),
    turn=st.sampled_from(TURNS),
    offset_s=st.floats(-1e8, 1e8),
)
def test_slots_strictly_increase_and_none_is_skipped(
    case: Case, turn: tuple[str, str], offset_s: float
) -> None:
    zone, at = turn
    plan, after_s = parsed(case, zone), moment(at) + offset_s
    slot_s = plan.next_after(after_s)
    assume(slot_s is not None)
    assert slot_s is not None
    assert slot_s > after_s
    # Whatever the moment before the slot, the slot comes next.
    assert plan.next_after(slot_s - 0.25) == slot_s
    assert plan.next_after((slot_s + after_s) / 2) in {slot_s, plan.next_after(slot_s)}


# Reading and showing.


@given(cases(seconds=False))
def test_a_day_that_never_comes_is_refused_and_no_other(case: Case) -> None:
    try:
        CronExpression.parse(case.text)
    except MisuseError:
        refused = True
    else:
        refused = False
    assert refused == case.never


@given(cases(seconds=True) | cases(seconds=False))
def test_what_is_shown_is_read_again(case: Case) -> None:
    expression = parsed(case, "UTC").expression
    assert str(expression) == case.text
    assert CronExpression.parse(str(expression)) == expression
    assert CronExpression.parse(f"  {case.text.replace(' ', chr(9))} \n") == expression
    values = [numbers for _, numbers in case.fields.values()]
    rewritten = CronExpression.parse(
        " ".join(
            text if text[0] == "*" else ",".join(map(str, sorted(numbers)))
            for (text, _), numbers in zip(case.fields.values(), values, strict=True)
        )
    )
    assert rewritten == expression


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("@daily", "0 0 * * *"),
        ("@midnight", "@daily"),
        ("@Annually", "@yearly"),
        ("0 5 * * *", "0 0 5 * * *"),
        ("0 0 * jan-mar/2 mon-fri", "0 0 * 1,3 1-5"),
        ("0 0 * * 5-7", "0 0 * * 0,fri,6"),
        ("@every 60m", "@every 1h"),
        ("@EVERY  60s", "@every 1m"),
    ],
)
def test_two_ways_to_write_the_same(short: str, long: str) -> None:
    assert CronExpression.parse(short) == CronExpression.parse(long)


@pytest.mark.parametrize(
    ("text", "names", "hint"),
    [
        ("", "has 0 fields", "minute hour day month weekday"),
        ("* * * *", "has 4 fields", "minute hour day month weekday"),
        ("* * * * * * *", "has 7 fields", "minute hour day month weekday"),
        ("60 * * * *", "the minute '60'", "0 to 59"),
        ("60 0 * * * *", "the second '60'", "0 to 59"),
        ("0 24 * * *", "the hour '24'", "0 to 23"),
        ("0 0 0 * *", "the day '0'", "1 to 31"),
        ("0 0 32 * *", "the day '32'", "1 to 31"),
        ("0 0 * 13 *", "the month '13'", "such as feb"),
        ("0 0 * january *", "the month 'january'", "such as feb"),
        ("0 0 * * 8", "the weekday '8'", "such as mon"),
        ("0 0 * * 00000000000008", "the weekday", "0 to 7"),
        ("0 0 L * *", "the day 'l'", "1 to 31"),
        ("0 0 ? * 1", "the day '?'", "1 to 31"),
        ("0 0 * * 1#2", "the weekday '1#2'", "such as mon"),
        ("mon 0 * * *", "the minute 'mon'", "0 to 59"),
        ("-1 0 * * *", "the minute '-1'", "0 to 59"),
        ("1, 0 * * *", "the minute ''", "0 to 59"),
        ("** 0 * * *", "the minute '**'", "0 to 59"),
        ("١ 0 * * *", "the minute '١'", "0 to 59"),
        ("5/15 * * * *", "the minute '5/15' has a step and no end", "write 5-59/15"),
        ("*/0 * * * *", "the minute '*/0' has a step", "0 to 59"),
        ("*/90 * * * *", "the minute '*/90' has a step that is not from 1 to 59", "*/2"),
        ("0 22-2 * * *", "the hour '22-2' runs backwards", "write 22-23,0-2"),
        ("0 0 * * fri-mon", "the weekday 'fri-mon' runs backwards", "write fri-7,0-mon"),
        ("0 0 31 2 *", "the day 31 never comes in the month feb", "up to 29"),
        ("0 0 31 4,6,9,11 *", "the day 31 never comes in the month apr,jun,sep,nov", "up to 30"),
        ("0 0 30-31 feb */2", "the day 30 never comes in the month feb", "up to 29"),
        ("@reboot", "'@reboot' is not a known schedule", "@hourly"),
        ("@daily * * * *", "is not a known schedule", "@hourly"),
        ("@every", "'@every' is not an interval", "@every 5m"),
        ("@every 0s", "'@every 0s' is not an interval", "@every 5m"),
        ("@every 1d", "'@every 1d' is not an interval", "@every 5m"),
        ("@every 1h30m", "is not an interval", "@every 5m"),
        ("@every 1000000h", "is not an interval", "up to six digits"),
        (f"{'1,' * 1000}1 * * * *", "2009 characters is too long", "under 1000"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, names: str, hint: str) -> None:
    with pytest.raises(MisuseError) as refusal:
        CronExpression.parse(text)
    assert names in refusal.value.problem
    assert hint in refusal.value.hint
    assert "\n" not in str(refusal.value)


@given(st.text(alphabet="*/,-0123456789 @jansumoevrydhl?\u0661\n", max_size=40))
@example("@every ١s")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        expression = CronExpression.parse(text)
    except MisuseError:
        return
    assert CronExpression.parse(str(expression)) == expression


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/berlin", "Europe/Berlin"),
        ("America/New York", "America/New_York"),
        ("America", ""),
        ("", "IANA name"),
        ("/etc/passwd", "IANA name"),
        ("../UTC", ""),
        ("Mars/Olympus_Mons", "IANA name"),
        ("a\0b", ""),
        ("x" * 5000, "IANA name"),
    ],
)
def test_an_unknown_zone_is_refused(zone: str, hint: str) -> None:
    with pytest.raises(MisuseError, match="is unknown") as refusal:
        schedule("@daily", zone)
    assert hint in refusal.value.hint


@pytest.mark.parametrize("at_s", [math.nan, math.inf, -math.inf, 1.7e12])
def test_what_is_no_time_in_seconds_is_refused(at_s: float) -> None:
    plan = schedule("@daily")
    for call in (
        lambda: plan.next_after(at_s),
        lambda: plan.slots_between(0.0, at_s, 1),
        lambda: due(plan, None, at_s, grace_s=1.0),
        lambda: due(plan, at_s, 0.0, grace_s=1.0),
    ):
        with pytest.raises(MisuseError, match="out of range"):
            call()


def test_settings_out_of_range_are_refused() -> None:
    plan = schedule("@daily")
    for window_s in (-1.0, math.nan, math.inf):
        with pytest.raises(MisuseError, match="window_s"):
            replace(plan, window_s=window_s)
    for grace_s in (-1.0, math.nan, math.inf):
        with pytest.raises(MisuseError, match="grace_s"):
            due(plan, None, 0.0, grace_s=grace_s)
    with pytest.raises(MisuseError, match="most 0"):
        due(plan, None, 0.0, grace_s=1.0, most=0)


# Which slots are due.

MINUTELY = "* * * * *"


@pytest.mark.parametrize(
    ("catch_up", "window_s", "last_slot_s", "now_s", "slots"),
    [
        # On time, whatever the policy.
        (CatchUp.NONE, None, 540.0, 600.0, [600.0]),
        (CatchUp.NONE, None, 540.0, 605.0, [600.0]),
        (CatchUp.NONE, None, 600.0, 605.0, []),
        # Missed: the slot of 600 by more than the grace of 5 seconds.
        (CatchUp.NONE, None, 540.0, 605.5, []),
        (CatchUp.ONE, None, 540.0, 605.5, [600.0]),
        (CatchUp.ALL, None, 540.0, 605.5, [600.0]),
        # Several missed and one on time.
        (CatchUp.NONE, None, 300.0, 601.0, [600.0]),
        (CatchUp.ONE, None, 300.0, 601.0, [540.0, 600.0]),
        (CatchUp.ONE, None, 300.0, 605.0, [540.0, 600.0]),
        (CatchUp.ALL, None, 300.0, 601.0, [360.0, 420.0, 480.0, 540.0, 600.0]),
        # Too old for the window.
        (CatchUp.ALL, 121.0, 300.0, 601.0, [480.0, 540.0, 600.0]),
        (CatchUp.ALL, 120.0, 300.0, 601.0, [540.0, 600.0]),
        (CatchUp.ONE, 60.0, 300.0, 601.0, [600.0]),
        (CatchUp.ONE, 60.0, 300.0, 610.0, [600.0]),
        (CatchUp.ONE, 0.0, 300.0, 601.0, [600.0]),
        # The clock went back.
        (CatchUp.ALL, None, 600.0, 300.0, []),
        (CatchUp.ONE, None, 600.0, 599.0, []),
        # Just created.
        (CatchUp.ALL, None, None, 601.0, []),
        (CatchUp.ALL, None, None, 599.5, []),
        (CatchUp.ALL, None, None, 600.0, [600.0]),
        # Created at 570 and never fired.
        (CatchUp.ALL, None, 570.0, 670.0, [600.0, 660.0]),
    ],
)
def test_these_slots_are_due(
    catch_up: CatchUp,
    window_s: float | None,
    last_slot_s: float | None,
    now_s: float,
    slots: list[float],
) -> None:
    plan = replace(schedule(MINUTELY, catch_up=catch_up), window_s=window_s)
    assert due(plan, last_slot_s, now_s, grace_s=5.0) == slots


def test_of_very_many_missed_slots_the_newest_are_fired() -> None:
    plan, now_s = schedule("* * * * * *"), 1.7e9
    slots = due(plan, 1.0e9, now_s, grace_s=5.0)
    assert slots == [now_s - 99.0 + number for number in range(100)]
    assert due(plan, 1.0e9, now_s, grace_s=5.0, most=2) == [now_s - 1.0, now_s]


@settings(deadline=None)
@given(
    text=st.sampled_from(
        ["*/7 * * * *", "30 2 * * *", "0 * * * *", "*/30 0-12 * * * *", "@every 11m", "0 2,3 * * *"]
    ),
    turn=st.sampled_from(TURNS),
    catch_up=st.sampled_from(CatchUp),
    window_s=st.none() | st.floats(0.0, 1e5),
    grace_s=st.floats(0.0, 4000.0),
    jumps=st.lists(st.floats(-50_000.0, 100_000.0) | st.floats(-90.0, 600.0), max_size=12),
)
def test_no_slot_is_fired_twice_whatever_the_clock_does(
    *,
    text: str,
    turn: tuple[str, str],
    catch_up: CatchUp,
    window_s: float | None,
    grace_s: float,
    jumps: list[float],
) -> None:
    zone, at = turn
    plan = replace(schedule(text, zone, catch_up), window_s=window_s)
    now_s = created_s = last_s = moment(at) - 20_000.0
    fired: list[float] = []
    for jump_s in jumps:
        now_s += jump_s
        slots = due(plan, last_s, now_s, grace_s=grace_s)
        check_decision(plan, slots, last_s, now_s, grace_s)
        fired += slots
        last_s = slots[-1] if slots else last_s
    assert all(earlier < later for earlier, later in pairwise([created_s, *fired]))


def check_decision(
    plan: CronSchedule, slots: list[float], last_s: float, now_s: float, grace_s: float
) -> None:
    """What is said of the policies, without the arithmetic that makes it fast."""
    newest = plan.slots_between(last_s, now_s, 10**6) if now_s - last_s < 1e5 else None
    if newest is None:
        return
    on_time = [at for at in newest if now_s - grace_s <= at]
    window_s = math.inf if plan.window_s is None else plan.window_s
    missed = [at for at in newest if at < now_s - grace_s and now_s - window_s <= at]
    kept = {CatchUp.NONE: 0, CatchUp.ONE: 1, CatchUp.ALL: len(missed)}[plan.catch_up]
    assert slots == [*missed[len(missed) - kept :], *on_time][-100:]
