"""Delays that grow and are spread at random."""

import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool.retry import Backoff, RetrySchedule

chances = st.floats(0.0, 1.0)
backoffs = st.builds(
    Backoff,
    attempts=st.sampled_from([1, 2, 7, sys.maxsize, 10**400]),
    first_s=st.one_of(st.just(0.0), st.floats(0.0, 1e9)),
    factor=st.one_of(st.just(1.0), st.floats(1.0, 1e9)),
    cap_s=st.floats(0.0, 1e9),
    jitter=st.sampled_from(["full", "equal", "none"]),
)
many = st.one_of(st.integers(1, 100), st.sampled_from([sys.maxsize - 1, 10**9, 10**400 - 1]))


@given(backoff=backoffs, attempts=many, chance=chances)
def test_a_delay_stays_in_its_range_however_many_attempts(
    backoff: Backoff, attempts: int, chance: float
) -> None:
    delay_s, longest_s = backoff.delay_s(attempts, chance), backoff.delay_s(attempts)
    assert (delay_s is None) is (longest_s is None) is (attempts >= backoff.attempts)
    if delay_s is None or longest_s is None:
        return
    lowest = {"full": 0.0, "equal": 0.5, "none": 1.0}[backoff.jitter]
    assert lowest * longest_s * (1 - 1e-9) <= delay_s <= longest_s <= backoff.cap_s
    assert longest_s >= min(backoff.first_s, backoff.cap_s)


@given(st.integers(1, 60), st.floats(0.001, 10), st.floats(1, 3), st.floats(0.001, 1e6))
def test_the_longest_delay_grows_by_the_factor_up_to_the_cap(
    attempts: int, first_s: float, factor: float, cap_s: float
) -> None:
    backoff = Backoff(attempts=100, first_s=first_s, factor=factor, cap_s=cap_s)
    expected_s = first_s
    for _ in range(attempts - 1):
        expected_s *= factor
    assert backoff.delay_s(attempts) == pytest.approx(min(cap_s, expected_s))


@pytest.mark.parametrize(("jitter", "low_s", "high_s"), [("full", 0.0, 8.0), ("equal", 4.0, 8.0)])
def test_jitter_fills_its_range_evenly(jitter: Any, low_s: float, high_s: float) -> None:
    backoff, chance = Backoff(attempts=9, jitter=jitter), random.Random(1)
    delays_s = [backoff.delay_s(4, chance.random()) or 0.0 for _ in range(8000)]
    eighth_s = (high_s - low_s) / 8
    for number in range(8):
        from_s = low_s + number * eighth_s
        assert sum(from_s <= delay_s < from_s + eighth_s for delay_s in delays_s) > 850
    assert backoff.delay_s(4, 0.0) == low_s


def test_without_jitter_chance_has_no_say() -> None:
    backoff = Backoff(attempts=6, jitter="none", cap_s=5.0)
    delays_s = [backoff.delay_s(attempts, 0.25) for attempts in range(7)]
    assert delays_s == [None, 1.0, 2.0, 4.0, 5.0, 5.0, None]


def test_by_default_there_are_three_attempts() -> None:
    assert [Backoff().delay_s(attempts) for attempts in (1, 2, 3)] == [1.0, 2.0, None]


def test_a_backoff_from_nothing_never_waits() -> None:
    backoff = Backoff(attempts=sys.maxsize, first_s=0.0)
    assert backoff.delay_s(sys.maxsize - 1) == 0.0


def test_a_backoff_that_does_not_grow_never_does() -> None:
    assert Backoff(attempts=10**400, factor=1.0).delay_s(10**400 - 1) == 1.0


@given(st.integers(1, 9), chances)
def test_a_schedule_has_no_jitter(attempts: int, chance: float) -> None:
    schedule = RetrySchedule((3.0, 0.0, 1.0))
    assert schedule.delay_s(attempts, chance) == schedule.delay_s(attempts)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"attempts": 0}, {"attempts": 2.5}, {"attempts": True}, {"first_s": -1.0}),
        *({"first_s": float("inf")}, {"first_s": "1s"}, {"factor": 0.5}, {"factor": float("nan")}),
        *({"cap_s": -1}, {"cap_s": float("inf")}, {"jitter": "some"}),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_field(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(MisuseError) as caught:
        Backoff(**wrong)
    assert caught.value.problem == f"{name} is {value!r}"
    assert caught.value.hint


@pytest.mark.parametrize("delay_s", [-1.0, float("nan"), float("inf")])
def test_a_schedule_refuses_what_is_no_delay(delay_s: float) -> None:
    with pytest.raises(MisuseError, match="delays_s"):
        RetrySchedule((1.0, delay_s))
