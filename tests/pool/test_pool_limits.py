"""Rate limits in a pool: never exceeded, used to the full, and paid for by nobody else."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import (
    Allowance,
    JobState,
    PaceSettings,
    Pool,
    PoolSettings,
    Rate,
    RateLimit,
    RetryPolicy,
    RetrySchedule,
    current_job,
)
from mailrace.pool.dispatch import Dispatch
from mailrace.pool.worker import Worker
from tests.pool.test_rate import most_in_a_window
from tests.support.clock import VirtualClock, settle


class Starts:
    """Jobs that note when they started, and what they were."""

    def __init__(self, clock: VirtualClock, takes_s: float = 0) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.s: list[float] = []
        self.names: list[object] = []

    async def run(self, name: object = None) -> None:
        self.s.append(self.clock.monotonic_s())
        self.names.append(name)
        if self.takes_s:
            await self.clock.sleep_s(self.takes_s)

    def most(self, window_s: float) -> int:
        return most_in_a_window(self.s, window_s)


async def submit(
    pool: Pool, starts: Starts, count: int, name: object = None, **options: Any
) -> None:
    view = pool.options(**options)
    for _ in range(count):
        await view.submit(starts.run, name)


@pytest.mark.parametrize("workers", [1, 5])
async def test_a_thousand_jobs_at_a_hundred_a_second_take_ten_to_eleven_seconds(
    workers: int,
) -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    async with Pool(clock=clock, workers=workers, queue_size=1000, rate="100/s") as pool:
        await submit(pool, starts, 1000)
        await pool.drain()
        assert pool.ledger().completed == 1000
    assert 10 <= clock.monotonic_s() <= 11
    assert starts.most(1.0) <= 100


@pytest.mark.parametrize("workers", [1, 5, 10, 20])
async def test_workers_do_ten_jobs_of_a_hundred_milliseconds_a_second_each(workers: int) -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock, takes_s=0.1)
    async with Pool(clock=clock, workers=workers, queue_size=1000) as pool:
        await submit(pool, starts, 400)
        await pool.drain()
    assert 400 / clock.monotonic_s() == pytest.approx(10 * workers)


@pytest.mark.parametrize("workers", [1, 2, 100])
async def test_one_worker_and_a_hundred_give_the_same_rate(workers: int) -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    async with Pool(clock=clock, workers=workers, queue_size=600, rate="50/s") as pool:
        await submit(pool, starts, 600)
    assert starts.most(1.0) <= 50
    # 599 slots of 1.01 s / 50, less what the first ones may make up: the same for all.
    assert clock.monotonic_s() == pytest.approx(599 * 1.01 / 50 - 0.005, abs=1e-6)


limits = st.lists(
    st.builds(Rate, count=st.integers(1, 30), window_s=st.sampled_from([0.5, 1.0, 10.0])),
    min_size=1,
    max_size=3,
    unique_by=lambda rate: rate.window_s,
)
loads = st.lists(
    st.tuples(st.integers(1, 25), st.integers(1, 3), st.sampled_from([0.0, 0.01, 0.7, 30.0])),
    min_size=1,
    max_size=6,
)


@given(rates=limits, loads=loads, workers=st.integers(1, 12), margin=st.sampled_from([0.0, 0.3]))
@settings(max_examples=60, deadline=None)
async def test_no_window_ever_holds_more_than_its_limit(
    rates: list[Rate], loads: list[tuple[int, int, float]], workers: int, margin: float
) -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock, takes_s=0.03)
    limit = RateLimit(rates=tuple(rates), margin=margin)
    used: list[float] = []

    async def run(cost: int) -> None:
        used.extend([clock.monotonic_s()] * cost)
        await starts.run()

    async with Pool(clock=clock, workers=workers, queue_size=1000, rate=limit) as pool:
        jobs = 0
        for count, cost, pause_s in loads:
            fits = min(cost, limit.cost_max)
            for _ in range(count):
                await pool.options(cost=fits).submit(run, fits)
            jobs += count
            await clock.sleep_s(pause_s)
        await pool.drain()
        assert pool.ledger().completed == jobs
    for rate in limit.used:
        assert most_in_a_window(used, rate.window_s) <= rate.count


async def test_a_worker_has_a_limit_of_its_own_and_the_others_go_on() -> None:
    clock = VirtualClock(auto=True)
    by_worker: dict[int, list[float]] = {}

    async def run() -> None:
        worker = current_job().worker
        assert worker is not None
        by_worker.setdefault(worker.number, []).append(clock.monotonic_s())

    async with Pool(clock=clock, workers=4, queue_size=500, worker_rate="10/s") as pool:
        for _ in range(400):
            await pool.submit(run)
    assert sum(map(len, by_worker.values())) == 400
    assert len(by_worker) == 4
    assert all(most_in_a_window(starts_s, 1.0) <= 10 for starts_s in by_worker.values())
    assert 9.5 <= clock.monotonic_s() <= 11


async def test_a_key_with_ten_thousand_jobs_delays_nobody_elses_one() -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    async with Pool(
        clock=clock, workers=2, queue_size=20_000, rate="100/s", key_rate="50/s"
    ) as pool:
        await submit(pool, starts, 10_000, "big", key="big")
        await clock.sleep_s(5)
        await submit(pool, starts, 1, "small", key="small")
        submitted_s = clock.monotonic_s()
        await clock.sleep_s(1)
        assert starts.s[starts.names.index("small")] - submitted_s < 0.05
        assert starts.most(1.0) <= 51
        await pool.close(0)


async def test_keys_take_turns_also_without_limits_of_their_own() -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    async with Pool(clock=clock, workers=1, queue_size=500, rate="100/s", fair_keys=True) as pool:
        pool.pause()
        for key, count in (("a", 100), ("b", 3), ("c", 3)):
            await submit(pool, starts, count, key, key=key)
        pool.resume()
    assert starts.names[:9] == ["a", "b", "c"] * 3


async def test_a_key_at_its_limit_takes_nothing_from_the_limit_of_all() -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    async with Pool(clock=clock, workers=5, queue_size=2000, rate="100/s", key_rate="10/s") as pool:
        for key in range(10):
            await submit(pool, starts, 100, key, key=key)
        await pool.drain()
    # Ten keys of 10/s share 100/s: nearly all of it is used, so no slot was lost to held keys.
    assert clock.monotonic_s() <= 11.5
    assert Counter(starts.names) == dict.fromkeys(range(10), 100)
    for key in range(10):
        own_s = [at_s for at_s, name in zip(starts.s, starts.names, strict=True) if name == key]
        assert most_in_a_window(own_s, 1.0) <= 10


async def test_ten_thousand_waiting_jobs_need_one_timer_and_no_herd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    takes = 0
    original = Dispatch.take

    def take(self: Dispatch, worker: Worker) -> Any:
        nonlocal takes
        takes += 1
        return original(self, worker)

    monkeypatch.setattr(Dispatch, "take", take)
    clock = VirtualClock()
    starts = Starts(clock)
    async with Pool(clock=clock, workers=100, queue_size=20_000, rate="100/s") as pool:
        await settle()
        await submit(pool, starts, 10_000)
        await clock.advance(1)
        assert len(pool.engine.timers) == 1
        before, takes = len(starts.s), 0
        await clock.advance(10)
        started = len(starts.s) - before
        assert started == pytest.approx(1000, rel=0.05)
        assert takes <= 4 * started
        assert len(pool.engine.timers) == 1
        await pool.close(0)


@pytest.mark.parametrize("takes_s", [0.0, 1.0])
async def test_what_was_not_used_is_given_back(takes_s: float) -> None:
    clock = VirtualClock()
    starts = Starts(clock)

    async def not_needed() -> None:
        if takes_s:
            await clock.sleep_s(takes_s)  # meanwhile the next job is told to wait for a minute
        current_job().refund()

    async with Pool(clock=clock, workers=2, rate="1/min") as pool:
        jobs = [await pool.submit(not_needed) for _ in range(10)]
        await clock.advance(10 * takes_s)
        assert all(job.done() for job in jobs)
        await submit(pool, starts, 3)
        await clock.advance(59)
        assert starts.s == [10 * takes_s]
        await clock.advance(90)
        assert len(starts.s) == 3
        assert starts.most(60) == 1


async def test_the_pace_gives_way_when_the_far_side_says_so_and_comes_back() -> None:
    clock = VirtualClock()
    starts = Starts(clock)
    pace = PaceSettings(decrease=0.5, increase=0.1, every_s=1.0)

    async with Pool(clock=clock, workers=5, queue_size=5000, rate="100/s", pace=pace) as pool:
        await submit(pool, starts, 4000)
        await clock.advance(5)
        full = len(starts.s)
        assert full == pytest.approx(500, rel=0.05)
        pool.engine.slowed()
        assert pool.numbers().pace == 0.5
        await clock.advance(1)
        assert len(starts.s) - full == pytest.approx(50, abs=5)
        await clock.advance(10)
        assert pool.numbers().pace == 1.0
        before = len(starts.s)
        await clock.advance(5)
        assert len(starts.s) - before == pytest.approx(500, rel=0.05)
        assert starts.most(1.0) <= 100
        await pool.close(0)


async def test_a_job_tells_the_pool_to_slow_down() -> None:
    clock = VirtualClock()

    async def refused() -> None:
        current_job().slow_down()

    async with Pool(clock=clock, workers=1, rate="100/s", pace=PaceSettings()) as pool:
        await (await pool.submit(refused))
        assert pool.numbers().pace == 0.5


async def test_a_margin_is_kept_back() -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    limit = RateLimit.parse("100/s", margin=0.1)
    async with Pool(clock=clock, workers=5, queue_size=900, rate=limit) as pool:
        await submit(pool, starts, 900)
    assert starts.most(1.0) <= 90
    assert 10 <= clock.monotonic_s() <= 11


async def test_two_pools_share_one_limit() -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    shared = Allowance(RateLimit.parse("100/s"))
    async with (
        Pool(clock=clock, workers=3, queue_size=500, rate=shared) as one,
        Pool(clock=clock, workers=3, queue_size=500, rate=shared) as two,
    ):
        for _ in range(500):
            await one.submit(starts.run, "one")
            await two.submit(starts.run, "two")
        await one.drain()
        await two.drain()
    assert Counter(starts.names) == {"one": 500, "two": 500}
    assert starts.most(1.0) <= 100
    assert 10 <= clock.monotonic_s() <= 11


async def test_pools_of_two_loops_cannot_share_a_limit() -> None:
    shared, own = (Allowance(RateLimit.parse("10/s")) for _ in range(2))

    async def take_it(**settings: Any) -> str:
        async with Pool(**settings) as pool:
            try:
                pool.reconfigure(rate=shared)
            except MisuseError as error:
                assert pool.settings.rate is settings["rate"], "nothing was changed"
                return str(error)
        return ""

    async def begin() -> str:
        try:
            await Pool(rate=shared).start()
        except MisuseError as error:
            return str(error)
        return ""

    async with Pool(rate=shared), Pool(rate=own) as other:
        other.reconfigure(rate=shared)
        said = await asyncio.to_thread(lambda: asyncio.run(begin()))
        assert said.startswith("rate is an Allowance that pools of another event loop use; give")
        assert await asyncio.to_thread(lambda: asyncio.run(take_it(rate="1/s"))) == said


def test_a_limit_goes_on_with_the_next_loop_when_its_loop_is_closed() -> None:
    shared = Allowance(RateLimit.parse("10/s"))

    async def use_it() -> int:
        async with Pool(rate=shared) as pool:
            return await (await pool.submit(asyncio.sleep, 0, 7))

    assert [asyncio.run(use_it()) for _ in range(2)] == [7, 7]


async def test_a_dear_job_of_low_priority_is_not_starved_by_cheap_ones() -> None:
    clock = VirtualClock()
    starts = Starts(clock)
    async with Pool(clock=clock, workers=3, queue_size=5000, rate="20/s", ageing=5.0) as pool:
        dear = await pool.options(cost=20, priority="low").submit(starts.run, "dear")
        for _ in range(60):
            await submit(pool, starts, 20, "cheap", priority="high")
            await clock.advance(0.5)
        # Those that came more than two ageings later wait behind it: 200 at 20/s, and its own 20.
        assert dear.state is JobState.COMPLETED
        assert 20 <= dear.summary().waited_s <= 24
        await pool.close(0)


@pytest.mark.parametrize(
    "limited",
    [
        PoolSettings(rate="10/s, 500/h"),
        PoolSettings(key_rate="10/s, 500/h"),
        PoolSettings(worker_rate="10/s, 500/h"),
    ],
)
async def test_what_could_never_pass_is_refused_at_submit(limited: PoolSettings) -> None:
    clock = VirtualClock()
    async with Pool(limited, clock=clock, workers=2) as pool:
        with pytest.raises(MisuseError, match=r"cost is 11.* 10 "):
            await pool.options(cost=11).submit(asyncio.sleep, 0)
        await (await pool.options(cost=10).submit(asyncio.sleep, 0))
        assert pool.ledger().accepted == 1
        assert pool.numbers().deaths == 0


async def test_who_cannot_start_holds_no_slot_when_it_is_cancelled() -> None:
    clock = VirtualClock()
    starts = Starts(clock)
    async with Pool(clock=clock, workers=2, queue_size=200, rate="10/s") as pool:
        jobs = [await pool.submit(starts.run) for _ in range(100)]
        await settle()
        for job in jobs[1:]:
            job.cancel()
        await clock.advance(10)
        assert len(starts.s) == 1
        await submit(pool, starts, 10)
        await clock.advance(1.2)
        assert len(starts.s) == 11


@pytest.mark.parametrize("overflow", ["wait", "caller runs", "spill", "drop oldest"])
async def test_the_limit_holds_whatever_happens_to_a_full_queue(overflow: Any) -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    settings_ = PoolSettings(overflow=overflow, queue_size=5, rate="20/s")
    async with Pool(settings_, clock=clock, workers=3) as pool:
        submits = [asyncio.create_task(pool.submit(starts.run)) for _ in range(100)]
        await asyncio.gather(*submits)
        await pool.drain()
        assert pool.ledger().balanced
        assert pool.ledger().accepted == 100
    assert starts.most(1.0) <= 20


async def test_retries_pay_as_first_attempts_do() -> None:
    clock = VirtualClock(auto=True)
    starts = Starts(clock)
    policy = RetryPolicy(delays=RetrySchedule((0.0, 0.0)))

    async def fail() -> None:
        await starts.run()
        raise OSError

    async with Pool(clock=clock, random=Random(1), workers=5, rate="10/s") as pool:
        for _ in range(20):
            await pool.options(retry=policy).submit(fail)
    assert len(starts.s) == 60
    assert starts.most(1.0) <= 10
