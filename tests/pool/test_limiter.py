"""The waiting room in front of a rate, in virtual time."""

import asyncio
from collections.abc import Callable

import pytest

from mailrace.clock import Alarm, Clock
from mailrace.errors import MisuseError
from mailrace.pool import (
    Limiter,
    NoLimit,
    Rate,
    RateLimiter,
    Schedule,
    SharedRateLimiter,
    Slots,
)
from mailrace.pool.allowance import Allowance
from mailrace.pool.rate import RateLimit
from tests.pool.test_rate import most_in_a_window
from tests.support.clock import VirtualClock, settle

SLICE_S = 0.1


class Keeper:
    """The state that processes share, a tenth of a second at a time.

    Args:
        answer_s: How long a question and its answer take, as long as a commit.
        asking: The part of that which has passed when the keeper looks at its clock.
    """

    def __init__(
        self, rate: Rate, clock: Clock, answer_s: float = 0.004, *, asking: float = 0.0
    ) -> None:
        self.schedule = Schedule.of(rate)
        self._clock = clock
        self._ask_s = answer_s * asking
        self._answer_s = answer_s - self._ask_s
        self._next_slot_s = 0.0
        self.asked = 0

    async def __call__(self) -> Slots:
        self.asked += 1
        schedule = self.schedule
        await self._clock.sleep_s(self._ask_s)
        now_s = self._clock.unix_s()
        slots = max(1, int(SLICE_S / schedule.interval_s))
        first_s, self._next_slot_s = schedule.take(self._next_slot_s, from_s=now_s, slots=slots)
        await self._clock.sleep_s(self._answer_s)
        return Slots(
            first_in_s=first_s - now_s,
            interval_s=schedule.interval_s,
            grace_s=schedule.grace_s,
            slots=slots,
        )


def make(kind: str, rate: Rate, clock: Clock) -> Limiter:
    if kind == "shared":
        return SharedRateLimiter(clock, Keeper(rate, clock))
    return RateLimiter(rate, clock)


async def depart(
    limiter: Limiter, clock: Clock, departures: int, *, waiters: int, busy_s: float = 0.0
) -> list[float]:
    times_s: list[float] = []
    left = iter(range(departures))

    async def waiter() -> None:
        for _ in left:
            await limiter.wait()
            times_s.append(clock.monotonic_s())
            await clock.sleep_s(busy_s)

    await asyncio.gather(*(waiter() for _ in range(waiters)))
    return times_s


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("waiters", [1, 50])
async def test_a_thousand_at_a_hundred_a_second_take_ten_seconds(kind: str, waiters: int) -> None:
    clock = VirtualClock(auto=True)
    limiter = make(kind, Rate(100, 1.0), clock)
    times_s = await depart(limiter, clock, 1000, waiters=waiters)
    assert 10.0 <= times_s[-1] - times_s[0] <= 11.0
    assert most_in_a_window(times_s, 1.0) <= 100
    assert limiter.waiting == 0


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("rate", [Rate(3, 60.0), Rate(100, 1.0), Rate(5000, 1.0)])
async def test_a_burst_after_a_rest_stays_within_the_limit(kind: str, rate: Rate) -> None:
    clock = VirtualClock(auto=True)
    limiter = make(kind, rate, clock)
    times_s = await depart(limiter, clock, rate.count, waiters=20)
    await clock.sleep_s(10 * rate.window_s)
    times_s += await depart(limiter, clock, 2 * rate.count, waiters=20)
    assert len(times_s) == 3 * rate.count
    assert most_in_a_window(times_s, rate.window_s) <= rate.count


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("rate", ["1/h", "10/min", "10/s"])
async def test_the_first_departure_does_not_wait(kind: str, rate: str) -> None:
    clock = VirtualClock(auto=True)
    await make(kind, Rate.parse(rate), clock).wait()
    assert clock.monotonic_s() < 0.01


@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_a_limit_that_does_not_bind_costs_no_time(kind: str) -> None:
    clock = VirtualClock(auto=True)
    await depart(make(kind, Rate(10, 1.0), clock), clock, 20, waiters=1, busy_s=0.2)
    assert clock.monotonic_s() < 20 * 0.21


@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_departures_go_in_the_order_of_the_calls(kind: str) -> None:
    clock = VirtualClock(auto=True)
    limiter, order = make(kind, Rate(10, 1.0), clock), list[int]()

    async def waiter(number: int) -> None:
        await limiter.wait()
        order.append(number)

    await asyncio.gather(*map(waiter, range(30)))
    assert order == list(range(30))


@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_cancelled_waiters_use_no_slot(kind: str) -> None:
    clock = VirtualClock(auto=True)
    limiter = make(kind, Rate(10, 1.0), clock)
    await limiter.wait()
    first = clock.monotonic_s()
    waiters = [asyncio.create_task(limiter.wait()) for _ in range(50)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert limiter.waiting == 50
    for waiter in waiters[:-1]:
        waiter.cancel()
    await waiters[-1]
    await asyncio.gather(*waiters, return_exceptions=True)
    # A slice that was being fetched for a cancelled waiter is lost, and no more than that.
    assert clock.monotonic_s() - first < 0.25
    assert limiter.waiting == 0


async def test_ten_thousand_waiters_have_one_timer() -> None:
    clock = VirtualClock()
    limiter = RateLimiter(Rate(1, 1.0), clock)
    waiters = [asyncio.create_task(limiter.wait()) for _ in range(10_000)]
    await settle()
    assert (limiter.waiting, clock.sleepers) == (9_999, 1)
    await clock.advance(2.1)
    assert (limiter.waiting, clock.sleepers) == (9_997, 1)
    for waiter in reversed(waiters):  # a line that is searched for each of them would take long
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert (limiter.waiting, clock.sleepers) == (0, 0)


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("turns", range(4))
async def test_the_turn_of_one_who_leaves_goes_to_the_next(kind: str, turns: int) -> None:
    """However far the turn has come to the second one when it is cancelled."""
    clock = VirtualClock()
    limiter, left = make(kind, Rate(10, 1.0), clock), list[int]()

    async def waiter(number: int) -> None:
        await limiter.wait()
        left.append(number)

    waiters = [asyncio.create_task(waiter(number)) for number in range(6)]
    await clock.advance(0.05)
    assert left == [0]
    clock.move_to(0.15)  # wakes the head, which gives its turn to the second one
    for _ in range(turns):
        await asyncio.sleep(0)
    waiters[2].cancel()
    waiters[4].cancel()
    await clock.advance(1.0)
    assert left == [0, 1, 3, 5]
    assert limiter.waiting == 0
    await asyncio.gather(*waiters, return_exceptions=True)


async def test_a_waiter_that_is_cancelled_uses_nothing() -> None:
    """Of ten that wait for five slots each nine leave: the tenth goes as if they had not been."""
    clock = VirtualClock(auto=True)
    limiter = RateLimiter(RateLimit.parse("10/s, 100/min"), clock)
    await limiter.wait(5)
    waiters = [asyncio.create_task(limiter.wait(5)) for _ in range(10)]
    await asyncio.sleep(0)
    for waiter in waiters[:-1]:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    alone = Allowance(RateLimit.parse("10/s, 100/min"))
    alone.take(0.0, 5)
    assert clock.monotonic_s() == pytest.approx(alone.next_s(0.0, 5))


async def test_costs_count_in_all_windows() -> None:
    clock = VirtualClock(auto=True)
    limiter, times_s = RateLimiter(RateLimit.parse("20/s, 100/min"), clock), list[float]()

    async def waiter(cost: int) -> None:
        await limiter.wait(cost)
        times_s.extend([clock.monotonic_s()] * cost)

    await asyncio.gather(*(waiter(cost) for cost in [1, 5, 20, 3] * 10))
    assert len(times_s) == 290
    assert times_s == sorted(times_s)
    assert most_in_a_window(times_s, 1.0) <= 20
    assert most_in_a_window(times_s, 60.0) <= 100


async def test_a_cost_that_never_fits_is_refused_at_once() -> None:
    limiter = RateLimiter(Rate(10, 1.0), VirtualClock())
    await limiter.wait()
    waiting = asyncio.create_task(limiter.wait())
    await settle()
    for cost in (11, 0):
        with pytest.raises(MisuseError, match=f"cost of {cost}"):
            await limiter.wait(cost)
    assert limiter.waiting == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("waiters", [1, 50])
async def test_processes_hold_a_shared_limit_together(waiters: int) -> None:
    """Each process has a clock of its own: the same wall time, another monotonic one."""
    clock = VirtualClock(auto=True)
    keeper = Keeper(Rate(200, 1.0), clock)
    limiters = [
        SharedRateLimiter(Offset(clock, hours * 3600), keeper) for hours in (0, 1, -5, 1000)
    ]
    departures = await asyncio.gather(
        *(depart(limiter, clock, 300, waiters=waiters) for limiter in limiters)
    )
    times_s = [time_s for times_s in departures for time_s in times_s]
    assert most_in_a_window(times_s, 1.0) <= 200
    assert 6.0 <= max(times_s) - min(times_s) <= 6.8


@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_timers_that_fire_late_cost_no_throughput(kind: str) -> None:
    clock = VirtualClock(auto=True)
    limiter = make(kind, Rate(100, 1.0), Late(clock))
    times_s = await depart(limiter, clock, 1000, waiters=10)
    assert 10.0 <= times_s[-1] - times_s[0] <= 11.0
    assert most_in_a_window(times_s, 1.0) <= 100


class Late:
    """The clock of a busy machine."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.monotonic_s = clock.monotonic_s
        self.unix_s = clock.unix_s
        self.call_at_s = clock.call_at_s

    async def sleep_s(self, seconds: float) -> None:
        await self._clock.sleep_s(seconds + 0.003)


class Offset:
    """The clock of another process of the same machine."""

    def __init__(self, clock: VirtualClock, offset_s: float) -> None:
        self._clock = clock
        self._offset_s = offset_s

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s() + self._offset_s

    def unix_s(self) -> float:
        return self._clock.unix_s()

    async def sleep_s(self, seconds: float) -> None:
        await self._clock.sleep_s(seconds)

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> Alarm:
        return self._clock.call_at_s(at_s - self._offset_s, callback)


async def test_a_slot_used_too_late_is_lost() -> None:
    clock = VirtualClock()
    keeper = Keeper(Rate(100, 1.0), clock, answer_s=0.0)
    limiter = SharedRateLimiter(clock, keeper)
    await limiter.wait()
    clock.move_to(30.0)  # the process stood still
    late = asyncio.create_task(depart(limiter, clock, 300, waiters=300))
    await settle()
    # The rest of the old slice is gone; what goes at once is inside the grace of the new one.
    assert 1 <= 300 - limiter.waiting <= 3
    await clock.advance(1.0)
    assert 300 - limiter.waiting <= 100
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    await settle()


@pytest.mark.parametrize("asking", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("answer_s", [0.05, 0.5])
async def test_a_slow_keeper_costs_departures_and_breaks_no_limit(
    answer_s: float, asking: float
) -> None:
    clock = VirtualClock(auto=True)
    keeper = Keeper(Rate(100, 1.0), clock, answer_s, asking=asking)
    limiter = SharedRateLimiter(clock, keeper)
    times_s = await depart(limiter, clock, 500, waiters=10)
    assert most_in_a_window(times_s, 1.0) <= 100


async def test_a_rate_that_its_keeper_lowers_holds_from_the_next_slice_on() -> None:
    clock = VirtualClock(auto=True)
    keeper = Keeper(Rate(100, 1.0), clock)
    limiter = SharedRateLimiter(clock, keeper)
    await depart(limiter, clock, 200, waiters=10)
    keeper.schedule = Schedule.of(Rate(10, 1.0))
    changed_s = clock.monotonic_s()
    times_s = await depart(limiter, clock, 60, waiters=10)
    later_s = [time_s for time_s in times_s if time_s > changed_s + 2 * SLICE_S]
    assert len(times_s) - len(later_s) <= 20
    assert most_in_a_window(later_s, 1.0) <= 10
    assert limiter.interval_s == keeper.schedule.interval_s


async def test_a_departure_knows_until_when_its_slot_is_good() -> None:
    clock = VirtualClock(auto=True)
    keeper = Keeper(Rate(100, 1.0), clock, answer_s=0.0)
    limiter = SharedRateLimiter(clock, keeper)
    for _ in range(30):
        await limiter.wait()
        assert clock.monotonic_s() <= limiter.until_s
        assert limiter.until_s <= clock.monotonic_s() + keeper.schedule.grace_s


async def test_slices_spare_the_keeper() -> None:
    clock = VirtualClock(auto=True)
    keeper = Keeper(Rate(1000, 1.0), clock)
    await depart(SharedRateLimiter(clock, keeper), clock, 1000, waiters=10)
    assert keeper.asked <= 12


async def test_a_keeper_that_fails_fails_its_waiter_only() -> None:
    clock = VirtualClock(auto=True)
    keeper = Keeper(Rate(100, 1.0), clock)
    failures = iter([OSError("gone")])

    async def failing() -> Slots:
        for failure in failures:
            raise failure
        return await keeper()

    limiter = SharedRateLimiter(clock, failing)
    with pytest.raises(OSError, match="gone"):
        await limiter.wait()
    await limiter.wait()
    assert limiter.waiting == 0


async def test_no_limit_lets_everything_go() -> None:
    limit = NoLimit()
    for _ in range(1000):
        await limit.wait()
    assert limit.waiting == 0
