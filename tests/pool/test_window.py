"""A count over a sliding window."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.pool.window import SURE, SlidingCount

WINDOW_S = 10.0
steps_s = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 3.0), st.floats(0.0, 40.0)), max_size=80)


@settings(deadline=None)
@given(steps_s=steps_s)
def test_all_that_is_surely_young_counts_and_nothing_that_is_old(steps_s: list[float]) -> None:
    count, now_s, times_s = SlidingCount(WINDOW_S), 0.0, []
    for step_s in steps_s:
        now_s += step_s
        count.add(now_s)
        times_s.append(now_s)
        slack_s = 1e-9 * (1 + now_s)
        surely = sum(now_s - time_s < WINDOW_S * SURE - slack_s for time_s in times_s)
        perhaps = sum(now_s - time_s < WINDOW_S + slack_s for time_s in times_s)
        assert surely <= count.total_at(now_s) <= perhaps


@settings(deadline=None)
@given(steps=st.lists(st.integers(0, 15), min_size=1, max_size=80))
def test_it_is_exact_for_times_a_tenth_of_the_window_apart(steps: list[int]) -> None:
    count, now, times = SlidingCount(WINDOW_S), 0, []
    for step in steps:
        now += step
        count.add(now)
        times.append(now)
        assert count.total_at(now) == sum(now - time < WINDOW_S for time in times)


def test_an_empty_count_is_nothing() -> None:
    assert SlidingCount(WINDOW_S).total_at(5.0) == 0


def test_a_window_too_short_for_the_clock_still_counts_and_forgets() -> None:
    count = SlidingCount(1e-9)
    count.add(1e9)
    assert count.total_at(1e9) <= 1
    assert count.total_at(1e9 + 1) == 0


def test_time_that_goes_back_is_the_latest_known() -> None:
    count = SlidingCount(WINDOW_S)
    count.add(100.0)
    count.add(95.0)
    assert count.total_at(99.0) == 2
    assert count.total_at(109.0) == 2
    assert count.total_at(110.0) == 0
