"""Histograms of durations and their sliding windows, against exact order statistics."""

import sys
from math import ceil, fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool.histogram import (
    LONGEST_S,
    RELATIVE_ERROR,
    SHORTEST_S,
    Histogram,
    Summary,
    WindowedHistogram,
)

NOTHING = Summary(count=0, mean_s=0.0, total_s=0.0, p50_s=0.0, p95_s=0.0, p99_s=0.0, max_s=0.0)

measured = st.floats(SHORTEST_S, LONGEST_S, exclude_max=True)
like_real_ones = st.floats(-6.0, 4.0).map(lambda exponent: 10.0**exponent)
durations = st.one_of(measured, like_real_ones, st.sampled_from([1e-6, 1e-3, 0.5, 1.0, 1e4]))


def exact_s(values_s: list[float], percent: int) -> float:
    """The order statistic at the nearest rank."""
    return sorted(values_s)[ceil(len(values_s) * percent / 100) - 1]


def histogram(values_s: list[float]) -> Histogram:
    result = Histogram()
    result.extend(values_s)
    return result


def summary(values_s: list[float]) -> Summary:
    return histogram(values_s).summary()


def test_the_stated_error_and_range_are_what_is_asked_for() -> None:
    assert RELATIVE_ERROR <= 0.02
    assert SHORTEST_S <= 1e-6
    assert LONGEST_S >= 10_000


@given(
    values_s=st.lists(durations, min_size=1, max_size=300),
    percent=st.sampled_from([1, 25, 50, 90, 95, 99, 100]),
)
def test_a_percentile_is_within_the_stated_error_of_the_order_statistic(
    values_s: list[float], percent: int
) -> None:
    found_s = histogram(values_s).percentile_s(percent)
    assert found_s == pytest.approx(exact_s(values_s, percent), rel=RELATIVE_ERROR * 1.000001)
    assert found_s <= max(values_s)


@given(values_s=st.lists(durations, min_size=1, max_size=300))
def test_a_summary_tells_count_total_mean_and_maximum_exactly(values_s: list[float]) -> None:
    found = summary(values_s)
    assert found.count == len(values_s)
    assert found.total_s == pytest.approx(fsum(values_s), rel=1e-12)
    assert found.mean_s == pytest.approx(fsum(values_s) / len(values_s), rel=1e-12)
    assert found.max_s == max(values_s)
    assert found.p50_s == histogram(values_s).percentile_s(50)
    assert found.p95_s == histogram(values_s).percentile_s(95)
    assert found.p99_s == histogram(values_s).percentile_s(99)


def test_the_ranks_of_percentiles_are_not_shifted_by_rounding() -> None:
    # The 19 least of 20 are 1 s, so that the 95th of a hundred still is.
    assert summary([1.0] * 19 + [100.0]).p95_s == pytest.approx(1.0, rel=RELATIVE_ERROR)
    assert summary([1.0] * 18 + [100.0] * 2).p95_s == pytest.approx(100.0, rel=RELATIVE_ERROR)
    assert histogram([1.0] * 7 + [9.0] * 93).percentile_s(7) == pytest.approx(1.0, rel=0.02)


@given(parts=st.lists(st.lists(durations, max_size=50), max_size=5))
def test_merging_is_the_same_as_counting_everything_in_one(parts: list[list[float]]) -> None:
    merged = Histogram()
    for part in parts:
        merged.merge(histogram(part))
    whole = histogram([value for part in parts for value in part])
    assert merged.buckets == whole.buckets
    assert merged.count == whole.count
    assert merged.max_s == whole.max_s


def test_nothing_counted_is_all_zeros() -> None:
    assert summary([]) == NOTHING
    assert WindowedHistogram().summary(60.0, 1e6) == NOTHING


@given(value_s=st.floats(0.0, SHORTEST_S, exclude_max=True))
def test_what_is_too_short_is_told_to_a_microsecond(value_s: float) -> None:
    assert abs(summary([value_s]).p50_s - value_s) <= 1e-6


def test_a_negative_duration_counts_as_the_shortest() -> None:
    found = histogram([-5.0, -1e-9, 2.0])
    assert found.percentile_s(66) == SHORTEST_S / 2
    assert found.percentile_s(100) == pytest.approx(2.0, rel=RELATIVE_ERROR)


@given(value_s=st.floats(LONGEST_S, 1e300))
def test_what_is_too_long_keeps_its_exact_maximum_only(value_s: float) -> None:
    found = summary([value_s])
    assert found.p99_s == LONGEST_S
    assert found.max_s == value_s


def test_a_histogram_takes_the_stated_memory_whatever_it_counts() -> None:
    busy = Histogram()
    for step in range(2000):
        busy.extend([1e-7 * 1.014**step] * 3)
    assert sys.getsizeof(busy.buckets) <= 10_000
    assert len(busy.buckets) == len(Histogram().buckets)


steps = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.lists(like_real_ones, max_size=4)), min_size=1, max_size=60
)


@given(steps=steps, window_s=st.sampled_from([60.0, 300.0]), begin_s=st.floats(0.0, 1e7))
def test_a_window_holds_all_of_its_seconds_and_nothing_older_than_a_slice_more(
    steps: list[tuple[float, list[float]]], window_s: float, begin_s: float
) -> None:
    windows, now_s, added = WindowedHistogram(), begin_s, list[tuple[float, float]]()
    for pause_s, values_s in steps:
        now_s += pause_s
        for value_s in values_s:
            windows.add(value_s, now_s)
            added.append((now_s, value_s))
        # A hair of room for slices whose edge is no exact float.
        sure = sum(at_s > now_s - window_s + 1e-6 for at_s, _ in added)
        possible = sum(at_s > now_s - window_s * 13 / 12 - 1e-6 for at_s, _ in added)
        assert sure <= windows.summary(window_s, now_s).count <= possible
    assert windows.count == len(added)
    assert windows.total_s == pytest.approx(fsum(value_s for _, value_s in added))


def test_a_window_really_forgets_percentiles_and_maximum_as_well() -> None:
    windows = WindowedHistogram()
    windows.add(500.0, 1000.0)
    windows.add(0.25, 1200.0)
    in_five_minutes, in_one = windows.summary(300.0, 1200.0), windows.summary(60.0, 1200.0)
    assert (in_five_minutes.count, in_five_minutes.max_s) == (2, 500.0)
    assert (in_one.count, in_one.max_s, in_one.total_s) == (1, 0.25, 0.25)
    assert in_one.p99_s == pytest.approx(0.25, rel=RELATIVE_ERROR)
    assert windows.summary(60.0, 1265.1) == NOTHING
    assert windows.summary(300.0, 1325.1).max_s == 0.25
    assert windows.summary(300.0, 1525.1) == NOTHING
    assert (windows.count, windows.total_s) == (2, 500.25)


def test_many_durations_at_once_are_all_counted_before_and_after_they_are_put_into_buckets() -> (
    None
):
    windows, number = WindowedHistogram(), 7001
    values_s = [1e-5 * 1.002**step for step in range(number)]
    for count, value_s in enumerate(values_s, start=1):
        windows.add(value_s, 100.0)
        assert windows.count == count
    assert windows.total_s == pytest.approx(fsum(values_s))
    found = windows.summary(60.0, 100.0)
    assert (found.count, found.max_s) == (number, max(values_s))
    for percent, found_s in ((50, found.p50_s), (95, found.p95_s), (99, found.p99_s)):
        assert found_s == pytest.approx(exact_s(values_s, percent), rel=RELATIVE_ERROR)


def test_what_was_added_before_a_pause_stays_in_its_own_slice() -> None:
    windows = WindowedHistogram()
    windows.add(1.0, 10.0)
    windows.add(2.0, 70.0)  # a minute and a slice later nothing had asked in between
    assert windows.summary(60.0, 76.0).max_s == 2.0
    assert windows.summary(60.0, 76.0).count == 1


def test_reading_ahead_of_time_loses_nothing_of_what_comes_then() -> None:
    windows = WindowedHistogram()
    windows.add(1.0, 10.0)
    assert windows.summary(60.0, 12.0).count == 1
    windows.add(2.0, 11.0)
    assert windows.summary(60.0, 12.0).count == 2


def test_memory_is_bounded_by_windows_and_not_by_durations_or_time() -> None:
    windows = WindowedHistogram()
    for step in range(20_000):
        windows.add(1e-6 * 1.001**step, step * 0.1)
        assert len(windows._pending) < 2000
    slices = [part for window in windows._windows.values() for _, part in window._slices]
    assert len(slices) <= 2 * 13
    assert sum(sys.getsizeof(part.buckets) for part in slices) + 2000 * 32 <= 324_000


@pytest.mark.parametrize("window_s", [0.0, -60.0, float("nan"), float("inf")])
def test_a_window_without_length_is_misuse(window_s: float) -> None:
    with pytest.raises(MisuseError, match=r"a window of .* s cannot be"):
        WindowedHistogram((60.0, window_s))


def test_asking_for_a_window_that_is_not_kept_names_those_that_are() -> None:
    with pytest.raises(MisuseError, match=r"no window of 30\.0 s; ask for one of 60, 300"):
        WindowedHistogram().summary(30.0, 0.0)
