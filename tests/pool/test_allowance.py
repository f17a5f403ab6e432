"""What a limit still allows, held against brute-force sliding windows."""

import math
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import allowance
from mailrace.pool.allowance import Allowance, Allowances, _seconds_until
from mailrace.pool.rate import Rate, RateLimit
from tests.pool.test_rate import most_in_a_window


@pytest.fixture(scope="module", autouse=True)
def few_keys_are_forgotten_too() -> Iterator[None]:
    """Otherwise a thousand keys would have to be there before any is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allowance, "_KEYS_MIN", 0)
        yield


limits = st.builds(
    lambda rates, margin: RateLimit(rates=tuple(rates), margin=margin),
    rates=st.lists(
        st.builds(
            Rate,
            count=st.integers(1, 12) | st.sampled_from([50, 150, 400]),
            window_s=st.sampled_from([1.0, 1.5, 4.0, 10.0, 60.0]),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda rate: rate.window_s,
    ),
    margin=st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.95]),
)
costs = st.just(1) | st.integers(1, 12) | st.sampled_from([50, 400])
pauses = st.just(0.0) | st.floats(0, 0.05) | st.floats(0, 3) | st.sampled_from([0.1, 1.0, 60.0])


class User:
    """Takes, waits and gives back, and notes what was really used and under which limit."""

    def __init__(self, limit: RateLimit, now_s: float = 1000.0) -> None:
        self.allowance = Allowance(limit)
        self.now_s = now_s
        self.used: list[tuple[float, int]] = []
        self.limits = [(-math.inf, limit)]

    def take(self, cost: int, *, patient: bool) -> bool:
        cost = min(cost, self.allowance.cost_max)
        wait_s = self.allowance.take(self.now_s, cost)
        if wait_s and patient:
            self.now_s += wait_s
            wait_s = self.allowance.take(self.now_s, cost)
            assert wait_s == 0.0
        if wait_s == 0.0:
            self.used.append((self.now_s, cost))
        return wait_s == 0.0

    def refund(self, number: int) -> None:
        if self.used:
            self.allowance.refund(*self.used.pop(number % len(self.used)))

    def change(self, limit: RateLimit) -> None:
        self.allowance.change(limit, self.now_s)
        self.limits.append((self.now_s, limit))

    def check(self) -> None:
        """No window that ends with a departure holds more than its limit at that time says."""
        for number, (at_s, _) in enumerate(self.used):
            limit = next(limit for since_s, limit in reversed(self.limits) if since_s <= at_s)
            if any(since_s == at_s for since_s, _ in self.limits):
                continue  # it may have gone just before the change
            for rate in limit.rates:
                held = sum(
                    cost
                    for used_s, cost in self.used[: number + 1]
                    if used_s > at_s - rate.window_s
                )
                assert held <= rate.count * (1 - limit.margin) + 1e-6 or (
                    held == 1 and rate.count * (1 - limit.margin) < 1
                )


takes = st.tuples(st.just("take"), pauses, costs, st.booleans())
refunds = st.tuples(st.just("refund"), pauses, st.integers(0, 3), st.booleans())
slows = st.tuples(st.just("slow"), pauses, st.sampled_from([0.05, 0.3, 0.5, 0.9, 1.0]), st.none())
changes = st.tuples(st.just("change"), pauses, limits, st.none())


@given(limit=limits, steps=st.lists(takes | refunds | slows | changes, max_size=60))
def test_no_window_holds_more_than_the_limit_whatever_happens(
    limit: RateLimit, steps: list[tuple[str, float, int | float | RateLimit, bool | None]]
) -> None:
    user = User(limit)
    for what, pause_s, value, flag in steps:
        user.now_s += pause_s
        match what, value:
            case "take", int(cost):
                user.take(cost, patient=bool(flag))
            case "refund", int(number):
                user.refund(-1 - number if flag else number)
            case "slow", float(factor):
                user.allowance.slow(factor)
            case "change", RateLimit():
                user.change(value)
    user.check()


@given(
    limit=limits,
    idle_s=st.floats(0, 200),
    cost_rows=st.lists(costs, min_size=1, max_size=5),
    refunded=st.integers(0, 5),
)
def test_whoever_goes_as_soon_as_possible_after_a_rest_stays_within_the_limit(
    limit: RateLimit, idle_s: float, cost_rows: list[int], refunded: int
) -> None:
    user = User(limit)
    for number in range(120):
        user.take(cost_rows[number % len(cost_rows)], patient=True)
        if refunded and number % 7 == refunded:
            user.refund(-refunded)
        if number == 60:
            user.now_s += idle_s
    user.check()


@given(before=limits, after=limits, again=limits, cost=costs, pause_s=pauses)
def test_what_was_used_before_a_change_counts_after_it(
    before: RateLimit, after: RateLimit, again: RateLimit, cost: int, pause_s: float
) -> None:
    user = User(before)
    for limit in (after, again):
        for _ in range(30):
            user.take(cost, patient=True)
        user.now_s += pause_s
        user.change(limit)
        assert user.allowance.limit == limit
        user.now_s += 1e-6
    for _ in range(30):
        user.take(cost, patient=True)
    user.check()


@pytest.mark.parametrize(
    ("changes", "wait_s"), [(["1/min", "100/h"], 3590), (["10/min", "20/50s"], 45)]
)
def test_what_the_last_limit_knew_nothing_of_still_counts_under_the_next(
    changes: list[str], wait_s: float
) -> None:
    user = User(RateLimit.parse("100/s"))
    for _ in range(1000):
        user.take(1, patient=True)
    used_s = user.now_s
    for text in changes:
        user.now_s += 1.0
        user.change(RateLimit.parse(text))
    user.now_s += 1.0
    assert user.take(1, patient=True)
    assert user.now_s >= used_s + wait_s
    user.check()


@pytest.mark.parametrize(
    ("before", "used", "after", "wait_s"),
    [
        ("10/s", 1, "5/min", 11.8),
        ("10/s", 5, "100/h", 129.0),
        ("100/s, 1000/h", 3, "50/s, 1000/h", 0.055),
        ("5/min", 1, "10/s", 0.096),
    ],
)
def test_a_change_costs_no_more_than_what_was_used(
    before: str, used: int, after: str, wait_s: float
) -> None:
    allowance = Allowance(RateLimit.parse(before))
    assert allowance.take(0.0, used) == 0.0
    allowance.change(RateLimit.parse(after), 1e-3)
    assert allowance.next_s(1e-3) == pytest.approx(wait_s, rel=0.05)


@given(before=limits, after=limits, steps=st.lists(st.tuples(pauses, costs), max_size=30))
def test_a_change_stops_departures_for_the_longest_window_at_most(
    before: RateLimit, after: RateLimit, steps: list[tuple[float, int]]
) -> None:
    user = User(before)
    for pause_s, cost in steps:
        user.now_s += pause_s
        user.take(cost, patient=False)
    user.change(after)
    longest_s = max(rate.window_s for rate in after.used)
    assert user.allowance.next_s(user.now_s) <= 1.01 * longest_s


@given(limit=limits, steps=st.lists(st.tuples(pauses, costs, st.booleans()), max_size=30))
def test_the_same_limit_again_changes_nothing(
    limit: RateLimit, steps: list[tuple[float, int, bool]]
) -> None:
    one, other = User(limit), User(limit)
    for pause_s, cost, change in steps:
        for user in (one, other):
            user.now_s += pause_s
        assert one.take(cost, patient=True) == other.take(cost, patient=True)
        assert one.used == other.used
        if change:
            other.change(RateLimit(rates=limit.rates, margin=limit.margin))


@given(limit=limits, steps=st.lists(st.tuples(pauses, costs), max_size=30), cost=costs)
def test_the_wait_is_exact(limit: RateLimit, steps: list[tuple[float, int]], cost: int) -> None:
    user = User(limit)
    for pause_s, before in steps:
        user.now_s += pause_s
        user.take(before, patient=True)
    cost = min(cost, limit.cost_max)
    wait_s = user.allowance.next_s(user.now_s, cost)
    if wait_s:
        assert user.allowance.take(user.now_s, cost) == wait_s
        early_s = user.now_s + wait_s - 1e-6 * min(1.0, wait_s)
        assert user.allowance.take(early_s, cost) > 0
    assert user.allowance.next_s(user.now_s + wait_s, cost) == 0.0
    assert user.allowance.take(user.now_s + wait_s, cost) == 0.0


@given(now_s=st.floats(-1e7, 1e7), at_s=st.floats(-1e7, 1e7))
@example(now_s=0.5, at_s=2.0**52 + 1)
def test_the_wait_is_never_rounded_down(now_s: float, at_s: float) -> None:
    now_s, at_s = sorted((now_s, at_s))
    assert now_s + _seconds_until(at_s, now_s) >= at_s
    assert (_seconds_until(at_s, now_s) > 0) == (at_s > now_s)


@given(limit=limits, steps=st.lists(st.tuples(pauses, costs), max_size=30), cost=costs)
def test_all_windows_or_none(limit: RateLimit, steps: list[tuple[float, int]], cost: int) -> None:
    """A refusal leaves every window as it was: the next wait is that of one who never asked."""
    one, other = User(limit), User(limit)
    for pause_s, before in steps:
        one.now_s += pause_s
        other.now_s = one.now_s
        if one.take(before, patient=False):
            other.take(before, patient=False)
        for price in (1, min(cost, limit.cost_max)):
            assert one.allowance.next_s(one.now_s, price) == other.allowance.next_s(
                one.now_s, price
            )


@given(limit=limits, steps=st.lists(st.tuples(pauses, costs), max_size=20), cost=costs)
def test_slots_given_back_at_once_were_never_taken(
    limit: RateLimit, steps: list[tuple[float, int]], cost: int
) -> None:
    user, now_s = User(limit), 0.0
    for pause_s, before in steps:
        user.now_s += pause_s
        user.take(before, patient=True)
        user.now_s += pause_s
    now_s, cost = user.now_s + 0.01, min(cost, limit.cost_max)
    prices = (1, cost, limit.cost_max)
    waits_s = [user.allowance.next_s(now_s, price) for price in prices]
    if user.allowance.take(now_s, cost) == 0.0:
        user.allowance.refund(now_s, cost)
        user.allowance.refund(now_s, limit.cost_max)  # more than were taken
    assert [user.allowance.next_s(now_s, price) for price in prices] == waits_s


def test_slots_come_back_later_too_unless_others_went_since() -> None:
    allowance = Allowance(RateLimit.parse("10/h"))
    assert allowance.take(0.0, 5) == 0.0
    assert allowance.next_s(60.0) > 1700
    allowance.refund(0.0, 4)
    assert 200 < allowance.next_s(60.0) < 310
    assert allowance.take(1000.0) == 0.0
    wait_s = allowance.next_s(1001.0)
    allowance.refund(0.0, 1)
    assert allowance.next_s(1001.0) == wait_s


def test_a_part_is_given_back_of_what_went_at_one_instant() -> None:
    allowance, other = (Allowance(RateLimit.parse("1000/s")) for _ in range(2))
    for _ in range(5):
        assert allowance.take(7.0) == 0.0
    for _ in range(3):
        allowance.refund(7.0)
    for _ in range(2):
        other.take(7.0)
    assert allowance.next_s(7.0, 100) == pytest.approx(other.next_s(7.0, 100))


def test_a_costly_departure_leaves_at_once_and_its_slots_are_paid_after_it() -> None:
    allowance = Allowance(RateLimit.parse("10/s"))
    assert allowance.take(0.0, 5) == 0.0
    assert allowance.take(0.0) == pytest.approx(0.5, abs=0.01)
    assert allowance.take(0.51) == 0.0
    assert allowance.take(100.0, 10) == 0.0
    assert allowance.take(100.0) == pytest.approx(1.0, abs=0.01)


@given(limit=limits)
def test_every_cost_up_to_the_highest_is_possible_in_the_end(limit: RateLimit) -> None:
    allowance, now_s = Allowance(limit), 0.0
    for cost in (limit.cost_max, 1, limit.cost_max):
        wait_s = allowance.next_s(now_s, cost)
        assert wait_s <= 2.1 * max(rate.window_s for rate in limit.used)
        now_s += wait_s
        assert allowance.take(now_s, cost) == 0.0


@pytest.mark.parametrize("cost", [0, -1, 10])
def test_a_cost_that_never_fits_is_misuse(cost: int) -> None:
    limit = RateLimit.parse("10/s, 100/min", margin=0.1)
    allowance, allowances = Allowance(limit), Allowances(limit)
    assert allowance.cost_max == allowances.cost_max == 9
    for call in (
        allowance.take,
        allowance.next_s,
        partial(allowances.take, "key"),
        partial(allowances.next_s, "key"),
    ):
        with pytest.raises(MisuseError, match=str(cost)) as caught:
            call(0.0, cost)
        assert cost < 1 or "10/s with a margin of 0.1" in str(caught.value)
    assert len(allowances) == 0
    assert allowance.take(0.0, 9) == 0.0


@given(limit=limits, factor=st.floats(0.05, 1.0), cost=costs)
def test_a_slowed_limit_runs_at_its_share(limit: RateLimit, factor: float, cost: int) -> None:
    user = User(limit)
    user.allowance.slow(factor)
    for _ in range(100):
        user.take(cost, patient=True)
    times_s = [at_s for at_s, cost in user.used for _ in range(cost)]
    for rate in limit.used:
        most = most_in_a_window(times_s, rate.window_s)
        assert most <= max(factor * rate.count + 1, user.used[0][1])


def test_the_full_pace_comes_back() -> None:
    allowance = Allowance(RateLimit.parse("10/s"))
    allowance.slow(0.1)
    allowance.take(0.0)
    assert allowance.next_s(0.0) == pytest.approx(1.0, abs=0.02)
    allowance.slow(1.0)
    allowance.take(2.0)
    assert allowance.next_s(2.0) == pytest.approx(0.1, abs=0.02)


def test_a_slowed_limit_stays_slowed_when_it_is_changed() -> None:
    allowance = Allowance(RateLimit.parse("10/s"))
    allowance.slow(0.1)
    allowance.change(RateLimit.parse("20/s"), 0.0)
    allowance.take(0.0)
    assert allowance.next_s(0.0) == pytest.approx(0.5, abs=0.02)
    assert not allowance.idle(1e6)


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.01, math.nan])
def test_a_factor_that_is_no_share_is_misuse(factor: float) -> None:
    with pytest.raises(MisuseError, match="factor"):
        Allowance(RateLimit.parse("10/s")).slow(factor)


@pytest.mark.parametrize("text", ["1/s", "100/s", "1000/s", "50/10s", "50/s, 60/min"])
def test_all_of_a_limit_is_used_but_for_a_few_percent(text: str) -> None:
    limit = RateLimit.parse(text)
    user = User(limit, now_s=0.0)
    while user.now_s < 10 * max(rate.window_s for rate in limit.rates):
        user.take(1, patient=True)
    assert len(user.used) >= 0.95 * min(
        user.now_s * rate.count / rate.window_s for rate in limit.rates
    )


@given(limit=limits, steps=st.lists(st.tuples(pauses, costs), max_size=30), pause_s=pauses)
def test_what_is_idle_is_as_good_as_new(
    limit: RateLimit, steps: list[tuple[float, int]], pause_s: float
) -> None:
    user = User(limit)
    assert user.allowance.idle(user.now_s)
    for gap_s, cost in steps:
        user.now_s += gap_s
        user.take(cost, patient=False)
        assert not user.allowance.idle(user.now_s)
    user.now_s += 10 * pause_s
    new = Allowance(limit)
    if user.allowance.idle(user.now_s):
        for cost in (1, limit.cost_max, 1):
            wait_s = new.next_s(user.now_s, cost)
            assert user.allowance.take(user.now_s, cost) == new.take(user.now_s, cost) == wait_s
    longest_s = max(rate.window_s for rate in limit.used)
    assert user.allowance.idle(user.now_s + 3 * longest_s)


def test_what_still_shortens_the_grace_of_the_next_slot_is_not_idle() -> None:
    allowance = Allowance(RateLimit.parse("1/s"))
    allowance.take(0.0)
    assert allowance.next_s(1.006) == 0.0
    assert not allowance.idle(1.006)
    assert allowance.idle(1.011)


@given(
    limit=limits,
    steps=st.lists(st.tuples(pauses, st.sampled_from("abcdef"), costs, st.booleans()), max_size=80),
)
def test_keys_that_are_forgotten_get_what_they_would_have_got_anyway(
    limit: RateLimit, steps: list[tuple[float, str, int, bool]]
) -> None:
    table, kept, now_s = Allowances(limit), dict[str, Allowance](), 1000.0
    for pause_s, key, cost, refund in steps:
        now_s += pause_s
        price = min(cost, limit.cost_max)
        one = kept.setdefault(key, Allowance(limit))
        assert table.next_s(key, now_s, price) == one.next_s(now_s, price)
        wait_s = table.take(key, now_s, price)
        assert wait_s == one.take(now_s, price)
        if refund and wait_s == 0.0:
            table.refund(key, now_s, price)
            one.refund(now_s, price)


def test_keys_seen_once_do_not_stay() -> None:
    table, most = Allowances(RateLimit.parse("10/s")), 0
    for number in range(20_000):
        assert table.take(number, number * 0.01) == 0.0
        most = max(most, len(table))
    assert most <= 250  # about a hundred a second are in use
    for number in range(8 * most):
        table.take("one", 1e6 + number)
    assert len(table) == 1


def test_a_key_in_use_is_not_forgotten_and_no_other_pays_for_it() -> None:
    table = Allowances(RateLimit.parse("1/h"))
    assert table.take("busy", 0.0) == 0.0
    for number in range(1000):
        assert table.take(number, 0.1 + number) == 0.0
        assert table.take("busy", 0.1 + number) > 0
    assert len(table) == 1001


def test_all_keys_change_together() -> None:
    table = Allowances(RateLimit.parse("1/min"))
    table.take("old", 0.0)
    table.change(RateLimit.parse("2/s"), 0.1)
    assert table.limit == RateLimit.parse("2/s")
    assert 0 < table.next_s("old", 0.1) <= 1
    assert table.take("new", 0.1) == 0.0
    assert table.next_s("new", 0.1) == pytest.approx(0.5, abs=0.01)
    table.refund("unknown", 0.1)
    assert len(table) == 2
