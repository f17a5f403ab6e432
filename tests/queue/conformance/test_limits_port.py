"""What every store does with limits that processes share: no window ever holds too much."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailrace.errors import ConflictError
from mailrace.pool import RateLimit
from mailrace.pool.limiter import Slots
from mailrace.queue import Store
from mailrace.queue.limits import LimitRow
from tests.queue.houses import Estate, House

# The stores keep times to the microsecond.
_EXACT_S = 1e-5


def limit(rates: str = "10/s", *, name: str = "relay", **fields: Any) -> LimitRow:
    return LimitRow(name=name, rates=rates, **fields)


@dataclass(slots=True)
class Taken:
    """Slots that were taken, by when each may be used: from its time until its grace is over."""

    clock: Callable[[], float]
    slots: list[tuple[float, float]] = field(default_factory=list)

    def add(self, taken: Slots) -> None:
        first_s = self.clock() + taken.first_in_s
        self.slots += [
            (first_s + place * taken.interval_s, taken.grace_s) for place in range(taken.slots)
        ]

    def check(self, rates: str, margin: float) -> None:
        """Used as unluckily as can be, no window of any rate holds more than it may."""
        times = sorted(self.slots)
        for rate in RateLimit.parse(rates, margin=margin).used:
            for (early_s, grace_s), (late_s, _) in zip(times, times[rate.count :], strict=False):
                assert late_s - (early_s + grace_s) >= rate.window_s - _EXACT_S


async def the_limit(store: Store, name: str = "relay") -> LimitRow:
    return next(row for row in await store.limits() if row.name == name)


# Keeping


async def test_a_limit_is_kept_for_everybody(house: House, store: Store) -> None:
    other = await house.opened()
    assert await store.limits() == []
    await store.set_limit(limit("10/s, 100/min", margin=0.1, adaptive=True))
    await store.set_limit(limit("5/10s", name="ä:{tenant}"))
    kept = {row.name: row for row in await other.limits()}
    assert set(kept) == {"relay", "ä:{tenant}"}
    relay = kept["relay"]
    assert (relay.rates, relay.margin, relay.adaptive, relay.pace) == (
        "10/s, 100/min", 0.1, True, 1.0,
    )  # fmt: skip
    assert await other.remove_limit("relay")
    assert not await store.remove_limit("relay")
    assert [row.name for row in await store.limits()] == ["ä:{tenant}"]


async def test_a_limit_that_is_not_there_gives_no_slots(store: Store) -> None:
    with pytest.raises(ConflictError):
        await store.take_slots("relay", None, span_s=1.0)
    await store.set_limit(limit())
    await store.remove_limit("relay")
    with pytest.raises(ConflictError):
        await store.take_slots("relay", None, span_s=1.0)


async def test_a_limit_that_is_not_there_cannot_be_slowed(store: Store) -> None:
    with pytest.raises(ConflictError, match="no limit 'relay'"):
        await store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=1.0)
    assert await store.limits() == []


async def test_a_limit_is_made_from_its_default_and_then_counts(house: House, store: Store) -> None:
    other = await house.opened()
    await store.take_slots("relay", limit("10/s", margin=0.5), span_s=0.1)
    taken = await other.take_slots("relay", limit("1000/s"), span_s=0.1)
    assert taken.interval_s >= 0.2
    assert (await the_limit(store)).rates == "10/s"
    assert (await other.take_slots("relay", None, span_s=0.1)).interval_s == taken.interval_s


# Slots


async def test_slots_of_a_limit_follow_each_other(house: House) -> None:
    one, other = await house.opened(), await house.opened()
    schedule = RateLimit.parse("10/s").schedules[0]
    next_s = 0.0
    for store in (one, other, one, other):
        taken = await store.take_slots("relay", limit(), span_s=0.5)
        assert taken.first_in_s == pytest.approx(next_s, abs=_EXACT_S)
        assert taken.interval_s == pytest.approx(schedule.interval_s)
        assert taken.grace_s == pytest.approx(schedule.grace_s)
        next_s = taken.first_in_s + taken.slots * taken.interval_s
    another = await one.take_slots("another", limit(name="another"), span_s=0.5)
    assert another.first_in_s == pytest.approx(0.0, abs=_EXACT_S)
    house.clock.move_to(1000.0)
    taken = await one.take_slots("relay", None, span_s=0.5)
    assert taken.first_in_s == pytest.approx(0.0, abs=_EXACT_S)  # what nobody took is not saved up


async def test_a_short_span_does_not_take_again_what_long_ones_took(
    house: House, store: Store
) -> None:
    """However far ahead the others have taken: those slots are going to be used."""
    other = await house.opened()
    taken_s = 0.0
    for span_s in (3.0, 3.0, 3.0, 0.05, 0.001):
        taken = await other.take_slots("relay", limit("20/s"), span_s=span_s)
        assert taken.first_in_s >= taken_s - _EXACT_S
        taken_s = taken.first_in_s + taken.slots * taken.interval_s


@pytest.mark.parametrize(
    ("rates", "span_s", "least", "most"),
    [
        *(
            ("10/s", 1.0, 8, 11),
            ("10/s", 0.05, 1, 1),
            ("1/h", 1.0, 1, 1),
            ("1000/s", 0.9, 800, 901),
        ),
        ("10/s, 100/min", 6.0, 8, 11),
    ],
)
async def test_a_span_holds_so_many_slots(
    store: Store, rates: str, span_s: float, least: int, most: int
) -> None:
    taken = await store.take_slots("relay", limit(rates), span_s=span_s)
    assert least <= taken.slots <= most
    assert taken.slots == 1 or (taken.slots - 1) * taken.interval_s <= span_s


async def test_the_next_slot_is_told(house: House, store: Store) -> None:
    taken = await store.take_slots("relay", limit(), span_s=1.0)
    next_s = house.clock.unix_s() + taken.slots * taken.interval_s
    assert (await the_limit(store)).next_slot_ms / 1000 == pytest.approx(next_s, abs=0.01)


RATES = st.sampled_from(["10/s", "3/s", "1/s", "200/s", "5/10s", "10/s, 100/min", "4/s, 6/5s"])
MARGINS = st.sampled_from([0.0, 0.1, 0.5, 0.95])
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "wait", "slow", "quicken"]),
        st.integers(0, 1),
        st.floats(0.01, 3.0),
    ),
    min_size=4,
    max_size=25,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rates=RATES, margin=MARGINS, calls=CALLS)
def test_no_window_ever_holds_too_much_over_two_stores(
    estate: Estate, rates: str, margin: float, calls: list[tuple[str, int, float]]
) -> None:
    asyncio.run(check_windows(estate.house(), rates, margin, calls))


async def check_windows(
    house: House, rates: str, margin: float, calls: Sequence[tuple[str, int, float]]
) -> None:
    stores = [await house.opened(), await house.opened()]
    await stores[0].set_limit(limit(rates, margin=margin, adaptive=True))
    slowest_s = max(
        schedule.interval_s for schedule in RateLimit.parse(rates, margin=margin).schedules
    )
    taken = Taken(house.clock.unix_s)
    pace = 1.0
    next_s = 0.0
    for what, side, amount in calls:
        store = stores[side]
        match what:
            case "take":
                slots = await store.take_slots("relay", None, span_s=amount)
                first_s = house.clock.unix_s() + slots.first_in_s
                assert slots.slots >= 1
                assert slots.first_in_s >= -_EXACT_S
                assert slots.interval_s == pytest.approx(slowest_s / pace, rel=1e-6)
                assert first_s >= next_s - _EXACT_S
                next_s = first_s + slots.slots * slots.interval_s
                taken.add(slots)
            case "wait":
                house.clock.move_to(house.clock.monotonic_s() + amount)
            case "slow":
                pace = await store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=amount)
                assert 0.1 <= pace <= 1.0
            case "quicken":
                await store.quicken_limits(step=0.2, every_s=amount)
                pace = (await the_limit(store)).pace
                assert 0.1 <= pace <= 1.0
    taken.check(rates, margin)
    await house.close()


async def test_stores_that_take_at_once_take_different_slots(house: House, store: Store) -> None:
    other = await house.opened()
    taken = Taken(house.clock.unix_s)
    answers = await asyncio.gather(
        *(mine.take_slots("relay", limit("50/s"), span_s=0.1) for mine in (store, other) * 5)
    )
    for slots in answers:
        taken.add(slots)
    times = sorted(at for at, _ in taken.slots)
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert min(gaps) >= answers[0].interval_s - _EXACT_S
    taken.check("50/s", 0.0)


# Changing


@pytest.mark.parametrize("rates", ["2/s", "100/s"])
async def test_a_limit_that_is_changed_goes_on_from_where_its_slots_are(
    house: House, store: Store, rates: str
) -> None:
    taken = await store.take_slots("relay", limit("10/s", adaptive=True), span_s=2.0)
    await store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=1.0)
    other = await house.opened()
    await other.set_limit(limit(rates, adaptive=True, pace=1.0, next_slot_ms=0.0))
    after = await store.take_slots("relay", None, span_s=1.0)
    assert after.first_in_s >= taken.slots * taken.interval_s - _EXACT_S
    expected_s = RateLimit.parse(rates).schedules[0].interval_s / 0.5
    assert after.interval_s == pytest.approx(expected_s, rel=1e-6)
    row = await the_limit(other)
    assert (row.rates, row.pace) == (rates, 0.5)


async def test_a_limit_that_is_raised_far_is_used_soon(house: House, store: Store) -> None:
    """Slots that were taken under the old one, hours ahead, are no reason to wait for them."""
    for _ in range(3):
        await store.take_slots("relay", limit("1/h"), span_s=1.0)
    await (await house.opened()).set_limit(limit("100/s"))
    taken = await store.take_slots("relay", None, span_s=1.0)
    assert taken.first_in_s <= 2.0


async def test_a_limit_slows_down_once_in_its_cool_down(house: House, store: Store) -> None:
    other = await house.opened()
    await store.set_limit(limit(adaptive=True))

    async def slow(mine: Store) -> float:
        return await mine.slow_limit("relay", factor=0.5, floor=0.2, cool_down_s=10.0)

    assert await slow(store) == pytest.approx(0.5)
    assert await slow(other) == pytest.approx(0.5)
    house.clock.move_to(9.9)
    assert await slow(other) == pytest.approx(0.5)
    house.clock.move_to(10.1)
    assert await slow(other) == pytest.approx(0.25)
    house.clock.move_to(21.0)
    assert await slow(store) == pytest.approx(0.2)  # the floor
    assert (await the_limit(store)).pace == pytest.approx(0.2)


async def test_a_limit_that_is_not_adaptive_keeps_its_pace(store: Store) -> None:
    await store.set_limit(limit())
    assert await store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=1.0) == 1.0
    taken = await store.take_slots("relay", None, span_s=1.0)
    assert taken.interval_s == pytest.approx(RateLimit.parse("10/s").schedules[0].interval_s)


async def test_slowed_limits_get_their_pace_back_step_by_step(house: House, store: Store) -> None:
    other = await house.opened()
    for name in ("relay", "second", "untouched"):
        await store.set_limit(limit(name=name, adaptive=True))
    for name in ("relay", "second"):
        await store.slow_limit(name, factor=0.5, floor=0.1, cool_down_s=1.0)
    house.clock.move_to(61.0)
    assert await store.quicken_limits(step=0.3, every_s=60.0) == 2
    assert await other.quicken_limits(step=0.3, every_s=60.0) == 0
    assert (await the_limit(other)).pace == pytest.approx(0.8)
    house.clock.move_to(122.0)
    assert await other.quicken_limits(step=0.3, every_s=60.0) == 2
    assert {row.pace for row in await store.limits()} == {1.0}
    house.clock.move_to(183.0)
    assert await store.quicken_limits(step=0.3, every_s=60.0) == 0


async def test_rows_of_limits_say_what_was_set(store: Store) -> None:
    row = limit("7/min", margin=0.25, adaptive=True)
    await store.set_limit(row)
    found = await the_limit(store)
    assert msgspec.structs.replace(found, next_slot_ms=0.0) == row


async def test_slots_of_several_limits_are_for_one_moment(house: House, store: Store) -> None:
    await store.set_limit(LimitRow(name="slow", rates="10/s"))
    await store.set_limit(LimitRow(name="quick", rates="100/s"))
    first = await store.take_together(["slow", "quick"], {}, slack_s=0.02)
    assert first.taken
    assert first.in_s == pytest.approx(0, abs=0.001)
    again = await store.take_together(["slow", "quick"], {}, slack_s=0.02)
    assert (again.taken, again.last) == (False, "slow")
    assert again.in_s == pytest.approx(0.101, abs=0.002)
    house.clock.move_to(again.in_s + 0.001)
    third = await store.take_together(["slow", "quick"], {}, slack_s=0.02)
    assert third.taken
    assert third.interval_s == pytest.approx(0.101, abs=0.001)


async def test_what_is_not_taken_together_is_left_to_others(house: House, store: Store) -> None:
    """A limit that another one would hold up loses nothing by it."""
    await store.set_limit(LimitRow(name="slow", rates="1/min"))
    await store.set_limit(LimitRow(name="quick", rates="10/s"))
    assert (await store.take_together(["slow", "quick"], {}, slack_s=0.02)).taken
    for _ in range(5):
        assert not (await store.take_together(["slow", "quick"], {}, slack_s=0.02)).taken
    slots = await store.take_slots("quick", None, span_s=0.1)
    assert slots.first_in_s == pytest.approx(0.101, abs=0.01)


async def test_no_limit_of_several_may_be_missing(store: Store) -> None:
    await store.set_limit(LimitRow(name="one", rates="10/s"))
    with pytest.raises(ConflictError, match="two"):
        await store.take_together(["one", "two"], {}, slack_s=0.02)
    made = LimitRow(name="two", rates="5/s")
    assert (await store.take_together(["one", "two"], {"two": made}, slack_s=0.02)).taken
    assert {limit.name for limit in await store.limits()} == {"one", "two"}
