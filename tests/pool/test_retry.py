"""When a job that failed for a while runs again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import RetrySchedule

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS_S))), min_size=1))
def test_delays_are_read_and_follow_each_other(delays: list[tuple[int, str]]) -> None:
    schedule = RetrySchedule.parse(", ".join(f"{many}{unit}" for many, unit in delays))
    assert schedule.delays_s == tuple(many * UNITS_S[unit] for many, unit in delays)
    assert [schedule.delay_s(n) for n in range(1, len(delays) + 1)] == list(schedule.delays_s)
    assert schedule.delay_s(len(delays) + 1) is None


def test_by_default_there_are_four_retries() -> None:
    minutes = [(RetrySchedule().delay_s(failures) or 0) / 60 for failures in range(1, 6)]
    assert minutes == [5, 15, 45, 135, 0]


@pytest.mark.parametrize("text", ["none", "NONE", " none "])
def test_none_is_a_single_attempt(text: str) -> None:
    assert RetrySchedule.parse(text).delay_s(1) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "1s,",
            ",1s",
            "1s,,5s",
            "5",
            "s",
            "-1s",
            "1 s",
            "1s;5s",
            "none,1s",
            "inf",
            "nans",
        ),
        *("1e3s", "٥s", "1.s", ".5s", f"{'9' * 400}s", f"{'9' * 400}.5d"),
    ],
)
def test_nonsense_is_refused_with_advice(text: str) -> None:
    with pytest.raises(MisuseError) as caught:
        RetrySchedule.parse(text)
    assert caught.value.hint


def test_a_fraction_is_a_delay() -> None:
    assert RetrySchedule.parse("0.5s,1.25m").delays_s == (0.5, 75.0)


@given(st.integers(max_value=0))
def test_nothing_follows_what_has_not_failed(failures: int) -> None:
    assert RetrySchedule().delay_s(failures) is None
