"""A pool's health: every reason comes with what is wrong, and goes when that is over."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailrace.errors import UnavailableError
from mailrace.pool import (
    BreakerSettings,
    BreakerStanding,
    BreakerState,
    Health,
    HealthSettings,
    JobTimeoutError,
    Ledger,
    Levels,
    MemorySettings,
    Numbers,
    Pool,
    Status,
    checkup,
    watch,
)
from mailrace.pool.health import Code, Reason
from tests.pool.gated import WAIT_S, Bench
from tests.support.clock import VirtualClock, settle

_NOON_S = 1_800_000_000.0


def told(pool: Pool, code: Code) -> Reason | None:
    return next((reason for reason in pool.health().reasons if reason.code is code), None)


def found(pool: Pool, code: Code) -> Reason:
    reason = told(pool, code)
    assert reason is not None, pool.health()
    assert reason.hint
    return reason


async def fail() -> None:
    raise OSError


async def succeed() -> None:
    return


async def test_a_pool_without_worries_is_healthy() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock) as pool:
        await (await pool.submit(asyncio.sleep, 0))
        health = pool.health()
        assert (health.status, health.reasons) == (Status.HEALTHY, ())
        assert health.ready
        assert health.live


async def test_a_full_queue_is_told_until_there_is_room() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1, queue_size=3) as pool:
        for _ in range(4):
            await pool.submit(clock.sleep_s, 10)
            await settle()
        reason = found(pool, Code.QUEUE_FULL)
        assert (reason.value, reason.limit) == (3, 3)
        assert pool.health().ready
        await clock.advance(10)
        assert told(pool, Code.QUEUE_FULL) is None
        await clock.advance(30)


async def test_a_reason_tells_since_when() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        await clock.advance(100)
        pool.pause()
        assert found(pool, Code.PAUSED).since_unix_s == _NOON_S + 100
        await clock.advance(40)
        reason = found(pool, Code.PAUSED)
        assert (reason.since_unix_s, reason.lasts_s, reason.value) == (_NOON_S + 100, 40, 40)
        pool.resume()
        assert pool.health().status is Status.HEALTHY
        await clock.advance(5)
        pool.pause()
        assert found(pool, Code.PAUSED).since_unix_s == _NOON_S + 145
        pool.resume()


async def test_a_job_that_waits_too_long_is_told_until_it_has_started() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        await pool.submit(clock.sleep_s, 1000)
        await settle()
        waits = await pool.submit(asyncio.sleep, 0)
        await clock.advance(59)
        assert told(pool, Code.QUEUE_WAIT) is None
        await clock.advance(1)
        reason = found(pool, Code.QUEUE_WAIT)
        assert (reason.status, reason.value, reason.limit) == (Status.DEGRADED, 60, 60)
        await clock.advance(540)
        assert found(pool, Code.QUEUE_WAIT).status is Status.UNHEALTHY
        assert not pool.health().ready
        assert pool.health().live
        await clock.advance(400)
        assert waits.done()
        assert told(pool, Code.QUEUE_WAIT) is None


async def test_a_wait_for_a_limit_leaves_the_pool_ready() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1, rate="1/day") as pool:
        for _ in range(3):
            await pool.submit(asyncio.sleep, 0)
        await clock.advance(3000)
        assert found(pool, Code.QUEUE_WAIT).status is Status.DEGRADED
        assert pool.health().ready
        await pool.close(0)


@pytest.mark.parametrize("metrics", [True, False])
async def test_a_share_of_failures_is_told_and_forgotten_after_a_minute(metrics: bool) -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2, queue_size=500, metrics=metrics) as pool:
        for number in range(200):
            await pool.submit(succeed if number % 4 else fail)
        await settle()
        reason = found(pool, Code.FAILURE_RATE)
        assert reason.value == pytest.approx(0.25, abs=0.02)
        assert (reason.status, reason.limit) == (Status.DEGRADED, 0.1)
        await clock.advance(61)
        assert told(pool, Code.FAILURE_RATE) is None


async def test_what_was_done_long_ago_does_not_hide_failures_of_now() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2, queue_size=5000) as pool:
        await (await pool.submit(fail)).outcome()
        await clock.advance(10)
        for _ in range(3000):
            await pool.submit(succeed)
        await clock.advance(300)
        for _ in range(30):
            await pool.submit(fail)
        await settle()
        reason = found(pool, Code.FAILURE_RATE)
        assert (reason.status, reason.value) == (Status.UNHEALTHY, 1.0)


async def test_a_few_failures_among_many_successes_of_this_minute_are_no_reason() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2, queue_size=5000) as pool:
        for _ in range(40):
            for _ in range(50):
                await pool.submit(succeed)
            await clock.advance(1)
        for _ in range(25):
            await pool.submit(fail)
        await settle()
        assert told(pool, Code.FAILURE_RATE) is None


async def test_an_open_breaker_is_told_until_it_closes() -> None:
    clock = VirtualClock()
    breaker = BreakerSettings(failures=2, break_s=30, jitter=0)
    async with Pool(clock=clock, workers=1, breaker=breaker, key_breaker=breaker) as pool:
        for _ in range(2):
            await pool.submit(fail)
        await settle()
        reason = found(pool, Code.BREAKER_OPEN)
        assert (reason.value, reason.limit, reason.status) == (2, 1, Status.DEGRADED)
        assert reason.detail == "the pool's; key None"
        await clock.advance(31)
        await (await pool.submit(asyncio.sleep, 0))
        assert told(pool, Code.BREAKER_OPEN) is None


async def test_a_stuck_job_is_told_until_it_ends() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        await pool.submit(clock.sleep_s, 700)
        await clock.advance(599)
        assert told(pool, Code.STUCK) is None
        await clock.advance(51)
        reason = found(pool, Code.STUCK)
        assert (reason.value, reason.limit) == (650, 600)
        assert reason.detail == "job 1 (VirtualClock.sleep_s) on worker 1, for 650 s"
        await clock.advance(50)
        assert told(pool, Code.STUCK) is None


async def test_an_abandoned_job_is_told_until_it_comes_back() -> None:
    clock = VirtualClock()
    levels = HealthSettings(abandoned=Levels(1, 2))
    async with Pool(clock=clock, workers=3, health=levels) as pool:
        back = threading.Event()
        jobs = []
        for number in (1, 2):
            jobs.append(await pool.options(timeout=1).submit(back.wait))
            await settle()
            await clock.advance(1)
            assert jobs[-1].done()
            reason = found(pool, Code.ABANDONED)
            assert reason.value == number
            first, *more = reason.detail.split("; ")
            assert first.startswith("job 1 (Event.wait) on worker ")
            assert first.endswith(f", for {number} s")
            assert len(more) == number - 1
        assert not pool.health().live
        assert not pool.health().ready
        back.set()
        for _ in range(500):
            if told(pool, Code.ABANDONED) is None:
                break
            await asyncio.sleep(0.01)  # the threads are real
        assert pool.health().live
        assert pool.numbers().late == 2


async def test_a_worker_that_died_is_told_for_a_minute_and_replaced() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2) as pool:
        await settle()
        (one, _) = pool.engine.crew
        one.ended.cancel()
        await settle()
        jobs = [await pool.submit(clock.sleep_s, 5) for _ in range(2)]
        await clock.advance(5)
        assert all(job.done() for job in jobs)
        numbers = pool.numbers()
        assert (numbers.workers, numbers.deaths) == (2, 1)
        reason = found(pool, Code.WORKER_DIED)
        assert (reason.value, reason.limit) == (1, 1)
        await clock.advance(61)
        assert told(pool, Code.WORKER_DIED) is None


async def test_an_overflow_in_use_is_told_until_it_is_empty() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1, queue_size=1, overflow="spill") as pool:
        for _ in range(4):
            await pool.submit(clock.sleep_s, 1)
            await settle()
        reason = found(pool, Code.OVERFLOW)
        assert (reason.value, reason.limit) == (2, 1)
        await clock.advance(2)
        assert told(pool, Code.OVERFLOW) is None
        await clock.advance(2)


async def test_memory_that_runs_short_is_told_until_it_is_there_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = 850
    monkeypatch.setattr(watch, "read_rss_bytes", lambda: used)
    clock = VirtualClock()
    memory = MemorySettings(process_max_bytes=1000, share_of_cgroup=None)
    async with Pool(clock=clock, workers=1, memory=memory) as pool:
        reason = found(pool, Code.MEMORY)
        assert (reason.status, reason.value, reason.limit) == (Status.DEGRADED, 850, 1000)
        assert told(pool, Code.SOURCES_STOPPED) is not None
        used = 950
        await clock.advance(1)
        assert found(pool, Code.MEMORY).status is Status.UNHEALTHY
        assert not pool.health().ready
        assert pool.health().live
        used = 500
        await clock.advance(1)
        assert pool.health().reasons == ()


async def test_a_loop_that_lags_is_told_and_forgotten_when_it_does_not() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        pool.engine.timers.at(10.0, lambda: None)
        clock.move_to(13.0)  # as a job that kept the loop to itself
        await settle()
        reason = found(pool, Code.LOOP_LAG)
        assert (reason.value, reason.status) == (3, Status.UNHEALTHY)
        assert not pool.health().live
        await clock.advance(60)
        assert pool.health().live
        assert told(pool, Code.LOOP_LAG) is None


async def test_a_lag_of_long_ago_is_no_reason_when_somebody_asks_for_the_first_time() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        pool.engine.timers.at(10.0, lambda: None)
        clock.move_to(13.0)
        await clock.advance(60)
        assert pool.health().reasons == ()


async def test_the_lag_is_found_also_where_the_pool_itself_waits_for_nothing() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        assert pool.health().reasons == ()
        clock.move_to(5.0)
        await settle()
        assert found(pool, Code.LOOP_LAG).value >= 2
        await clock.advance(60)
        assert pool.health().reasons == ()


async def test_looking_at_a_closed_pool_leaves_no_timer() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        pool.health()
    pool.health()
    assert len(pool.engine.timers) == 0
    assert clock.sleepers == 0


async def test_jobs_that_are_stuck_are_named_the_longest_first_and_at_most_three() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=9) as pool:
        for number in range(7):
            await pool.options(name=f"mail {number}").submit(clock.sleep_s, 2000)
            await clock.advance(100)
        assert [part.split(" on ")[0] for part in found(pool, Code.STUCK).detail.split("; ")] == [
            "job 1 (mail 0)",
            "job 2 (mail 1)",
        ]
        await clock.advance(300)
        *named, more = found(pool, Code.STUCK).detail.split("; ")
        assert [part.split(" on ")[0] for part in named] == [
            "job 1 (mail 0)",
            "job 2 (mail 1)",
            "job 3 (mail 2)",
        ]
        assert named[2].endswith(", for 800 s")
        assert more == "2 more"
        await clock.advance(2000)


async def test_the_breakers_that_are_open_are_told_with_their_keys_and_when_to_try_again() -> None:
    clock = VirtualClock()
    breaker = BreakerSettings(failures=5, break_s=30, jitter=0)
    key_breaker = BreakerSettings(failures=1, break_s=60, jitter=0)
    async with Pool(clock=clock, workers=1, breaker=breaker, key_breaker=key_breaker) as pool:
        own = BreakerStanding(key=None, of_pool=True, state=BreakerState.CLOSED, retry_in_s=0.0)
        assert pool.breakers() == (own,)
        await (await pool.options(key="well").submit(succeed)).outcome()
        for key in "abcd":
            await (await pool.options(key=key).submit(fail)).outcome()
        await clock.advance(10)
        own, *others = pool.breakers()
        assert own.state is BreakerState.CLOSED
        assert [(one.key, one.of_pool, one.state, one.retry_in_s) for one in others] == [
            (key, False, BreakerState.OPEN, 50.0) for key in "abcd"
        ]
        assert found(pool, Code.BREAKER_OPEN).detail == "key 'a'; key 'b'; key 'c'; 1 more"
        assert pool.numbers().breakers_open == 4
        await (await pool.options(key="e").submit(fail)).outcome()
        own, *_ = pool.breakers()
        assert (own.of_pool, own.state, own.retry_in_s) == (True, BreakerState.OPEN, 30.0)
        await clock.advance(50)
        states = {one.key: one.state for one in pool.breakers()}
        assert states["a"] is BreakerState.HALF_OPEN
        assert states["e"] is BreakerState.OPEN
        pool.reset_breakers()
        assert [one.state for one in pool.breakers()] == [BreakerState.CLOSED]
        assert pool.numbers().breakers_open == 0


async def test_a_pool_without_breakers_tells_of_none() -> None:
    async with Pool(clock=VirtualClock()) as pool:
        assert pool.breakers() == ()


async def test_a_pool_that_closes_is_not_ready_any_more_and_still_live() -> None:
    bench = Bench()
    async with bench.pool as pool:
        await pool.submit(bench.held)
        await settle()
        assert pool.health().ready
        closing = bench.closing(None)
        await settle()
        health = pool.health()
        assert [reason.code for reason in health.reasons] == [Code.CLOSED]
        assert (health.status, health.ready, health.live) == (Status.UNHEALTHY, False, True)
        bench.gate.set()
        await closing
    health = pool.health()
    assert [reason.code for reason in health.reasons] == [Code.CLOSED]
    assert (health.ready, health.live) == (False, True)


# From elsewhere.


async def test_another_thread_may_ask_and_no_timer_is_lost_by_it() -> None:
    async with Pool(workers=1) as pool:
        job = await pool.options(timeout=0.05).submit(asyncio.sleep, WAIT_S)
        health, numbers, ledger, breakers = await asyncio.to_thread(
            lambda: (pool.health(), pool.numbers(), pool.ledger(), pool.breakers())
        )
        assert (health.status, breakers) == (Status.HEALTHY, ())
        assert (numbers.workers, ledger.accepted, ledger.unfinished) == (1, 1, 1)
        with pytest.raises(JobTimeoutError):
            await job.result(WAIT_S)


async def test_another_loop_may_ask_and_no_timer_is_lost_by_it() -> None:
    async def ask(pool: Pool) -> Health:
        return pool.health()

    async with Pool(workers=1) as pool:
        status = await asyncio.to_thread(lambda: asyncio.run(ask(pool)).status)
        assert status is Status.HEALTHY
        job = await pool.options(timeout=0.05).submit(asyncio.sleep, WAIT_S)
        with pytest.raises(JobTimeoutError):
            await job.result(WAIT_S)


def test_a_pool_whose_loop_stands_still_may_be_asked_and_no_timer_is_lost_by_it() -> None:
    async def ask(pool: Pool) -> Health:
        return pool.health()

    async def late(pool: Pool) -> None:
        job = await pool.options(timeout=0.05).submit(asyncio.sleep, WAIT_S)
        with pytest.raises(JobTimeoutError):
            await job.result(WAIT_S)
        await pool.close()

    pool = Pool(workers=1)
    with asyncio.Runner() as runner:
        runner.run(pool.start())
        assert pool.health().status is Status.HEALTHY
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(asyncio.run, ask(pool)).result(WAIT_S) == Health()
        runner.run(late(pool))
    assert pool.ledger().failed == 1


@pytest.mark.parametrize("ask", [Pool.ledger, Pool.numbers, Pool.health, Pool.breakers])
async def test_a_loop_that_is_blocked_leaves_nobody_waiting_for_ever(
    ask: Callable[[Pool], Ledger | Numbers | Health | tuple[BreakerStanding, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkup, "_ANSWER_S", 0.01)
    async with Pool(name="mails", workers=1) as pool:
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(ask, pool)
            error = asked.exception(WAIT_S)  # which blocks the loop
        assert isinstance(error, UnavailableError)
        assert "pool mails has not answered" in error.problem
        assert error.hint
        await settle()
        assert pool.ledger().balanced
