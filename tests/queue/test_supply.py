"""How much is claimed: as much as is used up, and never more than the buffer holds."""

from hypothesis import given
from hypothesis import strategies as st

from mailrace.queue.supply import Supply

whole = st.integers(1, 500)


@given(workers=whole, most=whole, steps=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1))))
def test_the_stock_never_exceeds_the_buffer(
    workers: int, most: int, steps: list[tuple[float, float]]
) -> None:
    supply, stock, now_s = Supply(workers, most), 0, 0.0
    for passed_s, share in steps:
        now_s += passed_s
        stock -= int(stock * share)
        if supply.is_low(stock):
            stock += supply.wanted(stock, now_s)
            supply.claimed(1, now_s)
        assert stock <= most


def test_it_grows_while_it_is_used_up_at_once_and_shrinks_when_it_lasts() -> None:
    supply, wanted = Supply(5, 1000), []
    for _ in range(10):
        wanted.append(supply.wanted(0, 0.0))
        supply.claimed(1, 0.0)
    assert wanted == [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]
    assert supply.wanted(0, 0.5) == 1000  # it lasted as long as it should
    assert [supply.wanted(0, 100.0) for _ in range(9)] == [500, 250, 125, 62, 31, 15, 7, 5, 5]


def test_an_empty_stock_is_low_and_a_full_one_is_not() -> None:
    supply = Supply(5, 10)
    assert supply.is_low(0)
    assert not supply.is_low(10)


def test_a_stock_that_runs_low_calls_for_more_until_a_claim_finds_nothing() -> None:
    supply = Supply(8, 100)
    low = 6  # three quarters of the first claim
    assert [supply.calls(stock) for stock in (0, low, low + 1)] == [True, True, False]
    supply.claimed(0, 0.0)
    assert not supply.calls(0)
    assert supply.is_low(0)  # to be looked at again, at its own time
    supply.wanted(0, 1.0)
    assert not supply.calls(0)
    supply.claimed(3, 1.0)
    assert supply.calls(0)


def test_a_claim_that_finds_nothing_says_nothing_about_the_speed() -> None:
    supply = Supply(5, 1000)
    supply.claimed(5, 0.0)
    supply.claimed(0, 0.9)
    assert supply.wanted(0, 1.0) == 5
