"""What a pool says of itself: counts against a model, times against what was really taken."""

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.pool import (
    MemorySettings,
    Pool,
    PoolSettings,
    RetryPolicy,
    RetrySchedule,
    Summary,
    watch,
)
from mailrace.pool.histogram import RELATIVE_ERROR
from tests.support.clock import VirtualClock, settle

_NOON_S = 1_800_000_000.0


def exactly(values_s: Sequence[float], percent: int) -> float:
    return sorted(values_s)[-(-len(values_s) * percent // 100) - 1]


def check(summary: Summary, values_s: Sequence[float]) -> None:
    assert summary.count == len(values_s)
    assert summary.total_s == pytest.approx(math.fsum(values_s))
    assert summary.mean_s == pytest.approx(math.fsum(values_s) / len(values_s))
    assert summary.max_s == pytest.approx(max(values_s))
    for percent, told_s in ((50, summary.p50_s), (95, summary.p95_s), (99, summary.p99_s)):
        exact_s = exactly(values_s, percent)
        assert abs(told_s - exact_s) <= exact_s * RELATIVE_ERROR + 1e-6


ran = st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60)


@given(times_s=ran)
@settings(max_examples=40, deadline=None)
async def test_times_of_the_last_minutes_are_those_that_were_taken(times_s: list[float]) -> None:
    clock = VirtualClock(auto=True)
    ended_s: list[tuple[float, float, float]] = []

    async def work(takes_s: float) -> None:
        began_s = clock.monotonic_s()
        await clock.sleep_s(takes_s)
        now_s = clock.monotonic_s()
        ended_s.append((now_s, began_s, now_s - began_s))

    async with Pool(clock=clock, workers=2, queue_size=100) as pool:
        for takes_s in times_s:
            await pool.submit(work, takes_s)
        await pool.drain()
        numbers = pool.numbers()
        now_s = clock.monotonic_s()
    assert numbers.run is not None
    assert numbers.wait is not None
    all_s = [took_s for _, _, took_s in ended_s]
    check(numbers.run.last_5_minutes, all_s)
    assert numbers.run.count == len(times_s)
    assert numbers.run.total_s == pytest.approx(math.fsum(all_s))
    assert numbers.run.mean_s == pytest.approx(math.fsum(all_s) / len(all_s))
    assert numbers.wait.total_s == pytest.approx(math.fsum(at_s for _, at_s, _ in ended_s))
    # A window holds all of its length, and nothing older than a twelfth more.
    least = sum(at_s > now_s - 60 for at_s, _, _ in ended_s)
    most = sum(at_s > now_s - 65.001 for at_s, _, _ in ended_s)
    assert least <= numbers.run.last_minute.count <= most


async def test_windows_forget_and_totals_do_not() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.submit(clock.sleep_s, 2)
        await clock.advance(2)
        assert job.done()
        for passed_s, in_minute, in_5 in ((50, 1, 1), (16, 0, 1), (220, 0, 1), (40, 0, 0)):
            await clock.advance(passed_s)
            times = pool.numbers().run
            assert times is not None
            assert (times.last_minute.count, times.last_5_minutes.count) == (in_minute, in_5)
            assert (times.count, times.total_s, times.mean_s) == (1, 2, 2)
        assert times is not None
        assert times.last_5_minutes.p99_s == times.last_5_minutes.max_s == 0


async def test_waiting_is_counted_from_the_submit_to_the_start() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        for _ in range(3):
            await pool.submit(clock.sleep_s, 10)
        await clock.advance(30)
        times = pool.numbers().wait
        assert times is not None
        assert (times.count, times.total_s, times.mean_s) == (3, 30, 10)
        assert times.last_minute.max_s == 20


ends = st.lists(
    st.sampled_from(["complete", "fail", "retry", "timeout", "cancel", "expire", "refuse"]),
    min_size=1,
    max_size=30,
)


@given(ends=ends)
@settings(max_examples=40, deadline=None)
async def test_every_end_is_counted_where_it_belongs(ends: list[str]) -> None:
    clock = VirtualClock()
    once: set[int] = set()
    policy = RetryPolicy(delays=RetrySchedule((1.0,)))

    async def work(number: int, end: str) -> None:
        if end == "fail" or (end == "retry" and number not in once):
            once.add(number)
            raise OSError
        await clock.sleep_s(5 if end in {"timeout", "cancel"} else 0)

    async with Pool(clock=clock, workers=2, queue_size=40, overflow="refuse") as pool:
        for number, end in enumerate(ends):
            view = pool.options(
                retry=policy if end == "retry" else None, timeout=1 if end == "timeout" else None
            )
            if end == "expire":
                pool.pause()
                await pool.options(expires=1).submit(work, number, end)
                await clock.advance(1)
                pool.resume()
            elif end == "refuse":
                pool.pause()
                room = pool.engine.intake.room
                for _ in range(room):
                    await pool.submit(work, number, end)
                with pytest.raises(Exception, match="full"):
                    await pool.submit(work, number, end)
                pool.purge()
                pool.resume()
            else:
                job = await view.submit(work, number, end)
                await settle()
                if end == "cancel":
                    assert job.cancel()
            await clock.advance(2)
        await clock.advance(20)
        numbers = pool.numbers()
        ledger = numbers.ledger
        count = {end: ends.count(end) for end in ends}
        assert ledger.completed == count.get("complete", 0) + count.get("retry", 0)
        assert ledger.failed == count.get("fail", 0) + count.get("timeout", 0)
        assert ledger.failed == numbers.dead_letters == len(pool.dead_letters)
        assert ledger.cancelled == count.get("cancel", 0) + 40 * count.get("refuse", 0)
        assert ledger.expired == count.get("expire", 0)
        assert ledger.refused == count.get("refuse", 0)
        assert numbers.retries == count.get("retry", 0)
        assert numbers.timeouts == count.get("timeout", 0)
        assert ledger.unfinished == 0
        assert ledger.balanced


async def test_workers_active_idle_and_queued_are_those_of_now() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=3, queue_size=2) as pool:
        await settle()
        assert (pool.numbers().workers, pool.numbers().active, pool.numbers().idle) == (3, 0, 3)
        for _ in range(5):
            await pool.submit(clock.sleep_s, 10)
            await settle()
        waiting = asyncio.create_task(pool.submit(clock.sleep_s, 10))
        await settle()
        numbers = pool.numbers()
        assert (numbers.workers, numbers.active, numbers.idle) == (3, 3, 0)
        assert (numbers.ledger.queued, numbers.ledger.running) == (2, 3)
        assert numbers.waiting_submits == 1
        await clock.advance(20)
        assert waiting.done()
        numbers = pool.numbers()
        assert (numbers.active, numbers.idle, numbers.ledger.completed) == (0, 3, 6)


async def test_workers_that_rest_for_their_own_limit_are_idle() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=3, worker_rate="1/10s") as pool:
        await settle()
        for _ in range(6):
            await pool.submit(asyncio.sleep, 0)
        await settle()
        numbers = pool.numbers()
        assert (numbers.ledger.completed, numbers.ledger.queued) == (3, 3)
        assert (numbers.workers, numbers.active, numbers.idle) == (3, 0, 3)
        await clock.advance(11)
        assert pool.ledger().completed == 6


async def test_memory_is_told_while_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "read_rss_bytes", lambda: 500)
    memory = MemorySettings(process_max_bytes=1000, share_of_cgroup=None)
    async with Pool(clock=VirtualClock(), workers=1) as pool:
        numbers = pool.numbers()
        assert (numbers.memory_used_bytes, numbers.memory_limit_bytes) == (None, None)
        pool.reconfigure(memory=memory)
        numbers = pool.numbers()
        assert (numbers.memory_used_bytes, numbers.memory_limit_bytes) == (500, 1000)
        pool.reconfigure(memory=None)
        numbers = pool.numbers()
        assert (numbers.memory_used_bytes, numbers.memory_limit_bytes) == (None, None)


async def test_scale_ups_and_downs_are_counted_with_their_last_time() -> None:
    clock = VirtualClock()
    settings_ = PoolSettings(workers_min=2, workers_max=10, queue_size=100)
    async with Pool(settings_, clock=clock) as pool:
        numbers = pool.numbers()
        assert (numbers.scale_ups, numbers.last_scale_up_unix_s) == (0, None)
        assert (numbers.scale_downs, numbers.last_scale_down_unix_s) == (0, None)
        await clock.advance(7)
        assert pool.scale(+3) == 5
        await settle()
        numbers = pool.numbers()
        assert (numbers.workers, numbers.scale_ups) == (5, 1)
        assert numbers.last_scale_up_unix_s == pytest.approx(_NOON_S + 7)
        assert numbers.last_scale_down_unix_s is None
        await clock.advance(13)
        assert pool.scale(-1) == 4
        await settle()
        numbers = pool.numbers()
        assert (numbers.workers, numbers.scale_ups, numbers.scale_downs) == (4, 1, 1)
        assert numbers.last_scale_down_unix_s == pytest.approx(_NOON_S + 20)
        # The wall clock may be set back: what is told is on the clock of now.
        clock.set_back(3600)
        shown_s = pool.numbers().last_scale_down_unix_s
        assert shown_s == pytest.approx(_NOON_S + 20 - 3600)


async def test_it_grows_by_its_queue_and_shrinks_when_idle_and_says_so() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, queue_size=200) as pool:
        await settle()
        for _ in range(60):
            await pool.submit(clock.sleep_s, 10)
        await clock.advance(30)
        grown = pool.numbers()
        assert grown.workers > 2
        assert grown.scale_ups >= 1
        assert grown.last_scale_up_unix_s is not None
        await clock.advance(400)
        shrunk = pool.numbers()
        assert shrunk.workers == shrunk.idle == 2
        assert shrunk.scale_downs >= 1
        assert shrunk.last_scale_down_unix_s is not None
        assert shrunk.last_scale_down_unix_s > grown.last_scale_up_unix_s


async def test_without_metrics_there_are_counts_and_no_times() -> None:
    clock = VirtualClock()
    async with Pool(PoolSettings.resource_constrained(), clock=clock) as pool:
        await (await pool.submit(asyncio.sleep, 0))
        numbers = pool.numbers()
        assert (numbers.run, numbers.wait) == (None, None)
        assert numbers.ledger.completed == 1
        pool.reconfigure(metrics=True)
        await (await pool.submit(asyncio.sleep, 0))
        times = pool.numbers().run
        assert times is not None
        assert times.count == 1
        pool.reconfigure(metrics=False)
        await (await pool.submit(asyncio.sleep, 0))
        assert pool.numbers().run is None
        assert pool.ledger().completed == 3


async def test_failed_attempts_have_their_times_too() -> None:
    clock = VirtualClock()

    async def fail() -> None:
        await clock.sleep_s(3)
        raise OSError

    async with Pool(clock=clock, workers=1) as pool:
        await pool.options(retry=RetryPolicy(delays=RetrySchedule((1.0,)))).submit(fail)
        await clock.advance(10)
        times = pool.numbers().run
        assert times is not None
        assert (times.count, times.total_s) == (2, 6)
