"""How many retries there may be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool.budget import RetryBudget
from mailrace.pool.window import SURE

WINDOW_S = 10.0
happenings = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.5, 3.0, 11.0]), st.booleans()), max_size=200
)


def younger(times_s: list[float], now_s: float, span_s: float) -> int:
    return sum(now_s - time_s < span_s for time_s in times_s)


@settings(deadline=None)
@given(
    happenings=happenings,
    share=st.floats(0.01, 1.0),
    least_per_s=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
)
def test_it_never_allows_too_much_and_hardly_ever_too_little(
    happenings: list[tuple[float, bool]], share: float, least_per_s: float
) -> None:
    """Against lists of all times: exact but for the tenth of the window that a bucket is long."""
    budget = RetryBudget(share=share, least_per_s=least_per_s, window_s=WINDOW_S)
    reserve = least_per_s * WINDOW_S
    now_s = 0.0
    firsts_s: list[float] = []
    retries_s: list[float] = []
    for step_s, is_retry in happenings:
        now_s += step_s
        if not is_retry:
            budget.attempted(now_s)
            firsts_s.append(now_s)
        elif budget.spend(now_s):
            retries_s.append(now_s)
            retries = younger(retries_s, now_s, WINDOW_S - 1e-9)
            assert retries <= share * younger(firsts_s, now_s, WINDOW_S + 1e-9) + reserve + 1e-9
        else:
            retries = younger(retries_s, now_s, WINDOW_S / SURE + 1e-9)
            assert retries + 1 > share * younger(firsts_s, now_s, WINDOW_S * SURE) + reserve - 1e-9


def test_the_reserve_is_there_without_any_first_attempt_and_comes_back() -> None:
    budget = RetryBudget(share=0.0, least_per_s=10.0, window_s=1.0)
    assert [budget.spend(5.0) for _ in range(11)] == [True] * 10 + [False]
    assert not budget.spend(5.99)
    assert budget.spend(6.2)


def test_a_retry_counts_for_the_whole_window() -> None:
    budget = RetryBudget(share=0.0, least_per_s=10.0, window_s=1.0)
    assert budget.spend(0.0)
    assert sum(budget.spend(0.099) for _ in range(20)) == 9
    assert sum(budget.spend(1.05) for _ in range(20)) <= 1


def test_a_share_of_the_first_attempts_is_allowed_until_they_are_old() -> None:
    budget = RetryBudget(share=0.2, least_per_s=0.0)
    for _ in range(100):
        budget.attempted(0.0)
    assert sum(budget.spend(1.0) for _ in range(100)) == 20
    fresh = RetryBudget(share=0.2, least_per_s=0.0)
    for _ in range(100):
        fresh.attempted(0.0)
    assert not fresh.spend(10.0)


def test_a_retry_that_was_refused_uses_nothing() -> None:
    budget = RetryBudget(share=1.0, least_per_s=0.0)
    assert not any(budget.spend(0.0) for _ in range(50))
    budget.attempted(0.0)
    assert budget.spend(0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"share": -0.1}, {"share": 1.1}, {"share": float("nan")}, {"least_per_s": -1.0}),
        *({"window_s": 0.0}, {"window_s": float("inf")}, {"share": 0.0, "least_per_s": 0.0}),
    ],
)
def test_nonsense_is_refused_with_advice(wrong: dict[str, float]) -> None:
    with pytest.raises(MisuseError, match=next(iter(wrong))) as caught:
        RetryBudget(**wrong)
    assert caught.value.hint
