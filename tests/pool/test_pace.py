"""The share of a rate that the far side bears."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool.pace import Pace, PaceSettings

settings = st.builds(
    PaceSettings,
    decrease=st.floats(0.1, 0.9),
    increase=st.floats(0.01, 0.5),
    every_s=st.floats(0.1, 10),
    floor=st.floats(0.01, 0.5),
    cool_down_s=st.floats(0, 10),
)
reports = st.lists(
    st.tuples(st.just(0.0) | st.floats(0, 20), st.booleans(), st.integers(1, 5)), max_size=60
)


@given(settings=settings, reports=reports)
def test_it_keeps_its_bounds_and_tells_of_every_change(
    settings: PaceSettings, reports: list[tuple[float, bool, int]]
) -> None:
    pace, now_s = Pace(settings), 100.0
    for pause_s, success, times in reports:
        now_s += pause_s
        for _ in range(times):
            before = pace.factor
            changed = pace.succeeded(now_s) if success else pace.slowed(now_s)
            assert changed == (pace.factor != before)
            assert settings.floor <= pace.factor <= 1.0
            assert (pace.factor >= before) if success else (pace.factor <= before)


@given(settings=settings, reports=reports)
def test_it_falls_once_in_a_cool_down(
    settings: PaceSettings, reports: list[tuple[float, bool, int]]
) -> None:
    pace, now_s, fell_s = Pace(settings), 100.0, -math.inf
    for pause_s, success, times in reports:
        now_s += pause_s
        for _ in range(times):
            before = pace.factor
            if success:
                pace.succeeded(now_s)
            elif pace.slowed(now_s):
                assert now_s >= fell_s + settings.cool_down_s
                fell_s = now_s
                assert pace.factor == max(settings.floor, before * settings.decrease)


@given(settings=settings, pauses=st.lists(st.floats(0, 20), max_size=60))
def test_it_grows_no_faster_than_its_settings_say(
    settings: PaceSettings, pauses: list[float]
) -> None:
    pace, now_s = Pace(settings), 0.0
    pace.slowed(now_s)
    low = pace.factor
    for pause_s in pauses:
        now_s += pause_s
        before = pace.factor
        pace.succeeded(now_s)
        assert pace.factor <= before + settings.increase + 1e-9
        assert pace.factor <= low + settings.increase * now_s / settings.every_s + 1e-9


@given(settings=settings)
def test_it_comes_back_in_the_time_that_its_settings_say(settings: PaceSettings) -> None:
    pace, now_s = Pace(settings), 0.0
    pace.slowed(now_s)
    steps = math.ceil((1.0 - pace.factor) / settings.increase)
    for _ in range(4 * (steps + 2)):
        now_s += settings.every_s / 4
        pace.succeeded(now_s)
    assert pace.factor == 1.0
    assert not pace.succeeded(now_s + 100)


def test_a_burst_of_refusals_counts_once_and_a_long_one_goes_to_the_floor() -> None:
    pace = Pace()
    assert [pace.slowed(5.0 + number / 100) for number in range(100)] == [True] + [False] * 99
    assert pace.factor == 0.5
    for number in range(100):
        pace.slowed(6.0 + number)
    assert pace.factor == 0.05
    assert not pace.slowed(1000.0)


def test_nothing_grows_while_refusals_go_on() -> None:
    pace = Pace(PaceSettings(cool_down_s=3600.0))
    pace.slowed(0.0)
    for number in range(100):
        assert not pace.slowed(number / 2)
        assert not pace.succeeded(number / 2 + 0.1)
    assert pace.factor == 0.5


def test_a_pause_is_no_success() -> None:
    pace = Pace()
    pace.slowed(0.0)
    assert pace.succeeded(3600.0)
    assert pace.factor == 0.55
    assert not pace.succeeded(3600.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("decrease", value) for value in (0.0, 1.0, -1.0, math.nan)),
        *(("increase", value) for value in (0.0, 1.1, math.nan)),
        *(("every_s", value) for value in (0.0, -1.0, math.inf, math.nan)),
        *(("floor", value) for value in (0.0, 1.1, math.nan)),
        *(("cool_down_s", value) for value in (-0.1, math.inf, math.nan)),
    ],
)
def test_settings_that_make_no_pace_are_misuse(name: str, value: float) -> None:
    with pytest.raises(MisuseError, match=name) as caught:
        PaceSettings(**{name: value})
    assert str(value) in str(caught.value)
    assert caught.value.hint
