"""Rates and their schedule of slots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import Rate, Schedule
from mailrace.pool.rate import RateLimit

UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
rates = st.builds(
    Rate,
    count=st.integers(1, 5000),
    window_s=st.one_of(st.sampled_from([1.0, 10.0, 60.0, 3600.0]), st.floats(0.5, 1e5)),
)


@given(
    count=st.integers(1, 10**9 - 1),
    many=st.integers(1, 10**9 - 1),
    unit=st.sampled_from(sorted(UNITS)),
    gap=st.sampled_from(["", " "]),
)
def test_what_is_written_is_read(count: int, many: int, unit: str, gap: str) -> None:
    assert Rate.parse(f"{gap}{count}{gap}/{gap}{many}{gap}{unit}") == Rate(
        count, float(many * UNITS[unit])
    )
    assert Rate.parse(f"{count}/{unit.upper()}") == Rate(count, float(UNITS[unit]))


@given(count=st.integers(1, 10**9 - 1), window_s=st.integers(1, 10**9 - 1))
def test_a_rate_is_shown_as_it_may_be_written(count: int, window_s: int) -> None:
    rate = Rate(count, float(window_s))
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (Rate(100, 1.0), "100/s"),
        (Rate(5, 60.0), "5/min"),
        (Rate(1, 3600.0), "1/h"),
        (Rate(7, 86400.0), "7/day"),
        (Rate(5, 10.0), "5/10s"),
        (Rate(1, 1234567.0), "1/1234567s"),
    ],
)
def test_a_rate_is_shown_in_its_largest_unit(rate: Rate, shown: str) -> None:
    assert str(rate) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "/s", "100", "100/", "100/parsec", "-1/s", "1.5/s", "1/1.5s", "100/s/s", "∞/s"),
        *("0/s", "1/0s", "1e3/s", "100 s", "١/s", "1/ſ", "1/s\n1/s"),
        *(f"{'9' * 400}/s", f"1/{'9' * 400}s", f"{'9' * 5000}/s"),
    ],
)
def test_nonsense_is_refused_with_advice(text: str) -> None:
    with pytest.raises(MisuseError) as caught:
        Rate.parse(text)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="0123456789/ smhdaynec-.\u0660", max_size=12) | st.text(max_size=12))
def test_any_text_is_a_rate_or_misuse(text: str) -> None:
    try:
        rate = Rate.parse(text)
    except MisuseError:
        return
    assert rate.count >= 1
    assert rate.window_s >= 1


def most_in_a_window(times_s: list[float], window_s: float) -> int:
    """The most uses that any half-open window holds; one that holds most begins at a use."""
    times_s, most, end = sorted(times_s), 0, 0
    for start, start_s in enumerate(times_s):
        while end < len(times_s) and times_s[end] < start_s + window_s:
            end += 1
        most = max(most, end - start)
    return most


takings = st.lists(
    st.tuples(
        st.floats(0, 3),  # windows until the next taking
        st.integers(1, 50),  # slots
        st.booleans(),  # used at once by one sharer, or fetched by another
        st.floats(0, 1),  # how much of the grace its user lets pass
    ),
    max_size=60,
)


@given(rate=rates, takings=takings, shrink=st.sampled_from([0.001, 0.01, 0.3, 1.0]))
def test_no_window_ever_holds_more_than_the_limit(
    rate: Rate, takings: list[tuple[float, int, bool, float]], shrink: float
) -> None:
    schedule = Schedule.of(rate)
    now_s, state, uses_s = 0.0, float("-inf"), []
    for pause, slots, at_once, late in takings:
        now_s += pause * shrink * rate.window_s
        if at_once:
            now_s = max(now_s, state)
            _, state = schedule.take(state, from_s=now_s - schedule.grace_s)
            uses_s.append(now_s)
        else:
            first_s, state = schedule.take(state, from_s=now_s, slots=slots)
            uses_s += [
                first_s + number * schedule.interval_s + late * schedule.grace_s
                for number in range(slots)
            ]
    assert most_in_a_window(uses_s, rate.window_s) <= rate.count


@given(rate=rates, late=st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_limit_holds_for_whoever_goes_as_soon_as_possible(
    rate: Rate, late: list[float]
) -> None:
    schedule = Schedule.of(rate)
    now_s, state, uses_s = 0.0, float("-inf"), []
    for number in range(2 * rate.count):
        now_s = max(now_s, state + late[number % len(late)] * schedule.grace_s, 0.0)
        _, state = schedule.take(state, from_s=now_s - schedule.grace_s)
        uses_s.append(now_s)
    assert most_in_a_window(uses_s, rate.window_s) <= rate.count


@given(rate=rates, idle=st.floats(0, 100))
def test_idle_time_is_not_saved_up(rate: Rate, idle: float) -> None:
    schedule = Schedule.of(rate)
    _, state = schedule.take(float("-inf"), from_s=0.0)
    now_s = idle * rate.window_s
    burst = 0
    while state <= now_s or burst == 0:
        _, state = schedule.take(state, from_s=now_s - schedule.grace_s)
        burst += 1
    assert burst <= max(1, 0.03 * rate.count)


@given(rate=rates, slots=st.integers(1, 100))
def test_the_rate_is_used_up_but_for_a_few_percent(rate: Rate, slots: int) -> None:
    """A limit of 1 a window allows exactly the stretched interval; larger ones pay for a burst."""
    _, state = Schedule.of(rate).take(0.0, from_s=0.0, slots=slots)
    assert state <= slots * rate.window_s / rate.count * 1.04
    assert state >= slots * rate.window_s / rate.count


several = st.lists(
    st.builds(Rate, count=st.integers(1, 10**6), window_s=st.integers(1, 10**6).map(float)),
    min_size=1,
    max_size=4,
    unique_by=lambda rate: rate.window_s,
).map(tuple)


@given(rates=several, margin=st.floats(0, 1, exclude_max=True))
def test_a_limit_is_shown_as_it_may_be_written(rates: tuple[Rate, ...], margin: float) -> None:
    limit = RateLimit(rates=rates, margin=margin)
    assert RateLimit.parse(str(limit), margin=margin) == limit
    assert RateLimit.of(limit) is limit
    assert RateLimit.of(str(limit)) == RateLimit(rates=rates)
    assert RateLimit.of(rates[0]) == RateLimit(rates=rates[:1])


def test_a_limit_has_several_windows_or_one() -> None:
    assert RateLimit.parse("10/s, 100/min,1000/h").rates == (
        Rate(10, 1.0),
        Rate(100, 60.0),
        Rate(1000, 3600.0),
    )
    assert str(RateLimit.parse(" 10/1s,100/ 60s ")) == "10/s, 100/min"
    assert RateLimit.parse("7/day").rates == (Rate(7, 86400.0),)


@pytest.mark.parametrize(
    "text", ["", ",", "10/s,", "10/s;5/min", "10/s, x", "10/s, 5/s", "9/min, 9/60s", "1/s, 1/s"]
)
def test_a_limit_that_is_none_is_refused_with_advice(text: str) -> None:
    with pytest.raises(MisuseError) as caught:
        RateLimit.parse(text)
    assert caught.value.hint


def test_a_limit_without_rates_is_refused() -> None:
    with pytest.raises(MisuseError, match="no rate"):
        RateLimit(rates=())


@pytest.mark.parametrize("margin", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_margin_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(MisuseError, match="margin"):
        RateLimit.parse("10/s", margin=margin)


@pytest.mark.parametrize(
    ("text", "margin", "used"),
    [
        ("10/s, 1000/h", 0.1, (Rate(9, 1.0), Rate(900, 3600.0))),
        ("100/s", 0.42, (Rate(58, 1.0),)),
        ("5/s", 0.1, (Rate(4, 1.0),)),
        ("1/s", 0.5, (Rate(1, 2.0),)),
        ("3/s", 0.75, (Rate(1, 1 / 0.75),)),
    ],
)
def test_a_margin_is_kept_back_from_every_window(
    text: str, margin: float, used: tuple[Rate, ...]
) -> None:
    limit = RateLimit.parse(text, margin=margin)
    assert limit.used == used
    assert limit.cost_max == min(rate.count for rate in used)
    assert limit.schedules == tuple(map(Schedule.of, used))
