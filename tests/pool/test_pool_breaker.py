"""Circuit breakers in a pool: what is open waits, and asks again with a few probes only."""

import asyncio

import pytest

from mailrace.errors import RejectedError
from mailrace.pool import (
    BreakerSettings,
    Job,
    JobState,
    Pool,
    PoolSettings,
    RetryPolicy,
    RetrySchedule,
)
from mailrace.pool.health import Code
from tests.support.clock import VirtualClock, settle

STRICT = BreakerSettings(failures=3, break_s=30, jitter=0, growth=2, break_max_s=100)


class Far:
    """A far side that is up or down, and notes who came when."""

    def __init__(self, clock: VirtualClock, takes_s: float = 0) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.error: Exception | None = OSError("down")
        self.starts_s: list[float] = []

    async def call(self) -> str:
        self.starts_s.append(self.clock.monotonic_s())
        if self.takes_s:
            await self.clock.sleep_s(self.takes_s)
        if self.error is not None:
            raise self.error
        return "up"


async def many(pool: Pool, far: Far, count: int) -> list[Job[str]]:
    jobs = [await pool.submit(far.call) for _ in range(count)]
    await settle()
    return jobs


def reasons(pool: Pool) -> set[str]:
    return {reason.code.value for reason in pool.health().reasons}


async def test_it_opens_after_so_many_failures_and_the_others_wait() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=1, breaker=STRICT) as pool:
        jobs = await many(pool, far, 10)
        assert len(far.starts_s) == 3
        assert {job.attempts for job in jobs[3:]} == {0}
        assert len(pool.engine.timers) == 1
        assert Code.BREAKER_OPEN in reasons(pool)
        far.error = None
        await clock.advance(29.9)
        assert len(far.starts_s) == 3
        await clock.advance(0.2)
        # The probe passes, and that frees everybody at once.
        assert len(far.starts_s) == 10
        assert [await job for job in jobs[3:]] == ["up"] * 7
        assert Code.BREAKER_OPEN not in reasons(pool)


@pytest.mark.parametrize("probes", [1, 3])
async def test_of_a_thousand_waiting_jobs_only_so_many_probe(probes: int) -> None:
    clock = VirtualClock()
    far = Far(clock, takes_s=5)
    breaker = BreakerSettings(
        failures=3, break_s=30, jitter=0, probes=probes, probe_successes=probes
    )
    async with Pool(clock=clock, workers=50, queue_size=2000, breaker=breaker) as pool:
        first = [await pool.submit(far.call) for _ in range(3)]
        await clock.advance(5)
        assert all(job.done() for job in first)
        await many(pool, far, 1000)
        far.starts_s.clear()
        far.error = None
        await clock.advance(30)
        assert len(far.starts_s) == probes
        await clock.advance(4.9)
        assert len(far.starts_s) == probes
        assert pool.ledger().running == probes
        await clock.advance(0.1)
        assert pool.ledger().running == 50
        await clock.advance(200)
        assert pool.ledger().completed == 1000


async def test_breaks_grow_while_probes_fail_up_to_their_longest() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=5, breaker=STRICT) as pool:
        await many(pool, far, 20)
        await clock.advance(330)
        assert far.starts_s[:3] == [0, 0, 0]
        assert far.starts_s[3:] == [30, 90, 190, 290]
        far.error = None
        await clock.advance(100)
        assert pool.ledger().queued == 0


async def test_a_probe_that_is_cancelled_returns_its_lease() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=2, breaker=STRICT) as pool:
        jobs = await many(pool, far, 6)
        far.error, far.takes_s = None, 20
        await clock.advance(30)
        (probe,) = [job for job in jobs if job.state is JobState.RUNNING]
        far.takes_s = 0
        assert probe.cancel()
        await settle()
        assert len(far.starts_s) == 6  # another one has probed, and freed the rest
        assert pool.ledger().cancelled == 1


async def test_a_probe_that_never_reports_makes_room_for_another_one() -> None:
    clock = VirtualClock()
    far = Far(clock)
    breaker = BreakerSettings(failures=3, break_s=30, jitter=0, probe_lease_s=60)
    async with Pool(clock=clock, workers=3, breaker=breaker) as pool:
        await many(pool, far, 6)
        far.error, far.takes_s = None, 1000
        await clock.advance(30)
        assert len(far.starts_s) == 4
        far.takes_s = 0
        await clock.advance(60)
        assert len(far.starts_s) == 6
        await clock.advance(1000)


async def test_timeouts_count() -> None:
    clock = VirtualClock()
    far = Far(clock, takes_s=100)
    async with Pool(clock=clock, workers=3, breaker=STRICT) as pool:
        jobs = [await pool.options(timeout=1).submit(far.call) for _ in range(5)]
        await clock.advance(1)
        assert [job.done() for job in jobs] == [True] * 3 + [False] * 2
        await clock.advance(10)
        assert len(far.starts_s) == 3
        await pool.close(0)


async def test_cancels_do_not_count() -> None:
    clock = VirtualClock()
    far = Far(clock, takes_s=100)
    async with Pool(clock=clock, workers=10, breaker=STRICT) as pool:
        jobs = await many(pool, far, 10)
        for job in jobs:
            assert job.cancel()
        await settle()
        assert pool.ledger().cancelled == 10
        far.takes_s, far.error = 0, None
        assert await (await pool.submit(far.call)) == "up"
        assert clock.monotonic_s() == 0


async def test_errors_that_say_nothing_about_the_far_side_do_not_count() -> None:
    clock = VirtualClock()
    far = Far(clock)
    ignored = (RejectedError, KeyError)
    async with Pool(clock=clock, workers=1, breaker=STRICT, breaker_ignores=ignored) as pool:
        for error in (RejectedError("no such user"), KeyError("ours")):
            far.error = error
            await many(pool, far, 5)
        far.error = OSError()
        await many(pool, far, 5)
        assert len(far.starts_s) == 13
        await pool.close(0)


async def test_a_breaker_by_key_holds_one_key_only() -> None:
    clock = VirtualClock()
    bad, good = Far(clock), Far(clock)
    good.error = None
    async with Pool(clock=clock, workers=2, key_breaker=STRICT) as pool:
        held = [await pool.options(key="bad").submit(bad.call) for _ in range(6)]
        await settle()
        passing = [await pool.options(key="good").submit(good.call) for _ in range(6)]
        await settle()
        assert all(job.done() for job in passing)
        assert len(bad.starts_s) == 3
        bad.error = None
        await clock.advance(30)
        assert all(job.done() for job in held)
        assert bad.starts_s[3:] == [30] * 3


async def test_a_reset_by_hand_lets_them_go_at_once() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=2, breaker=STRICT, key_breaker=STRICT) as pool:
        for key in ("a", "b"):
            for _ in range(5):
                await pool.options(key=key).submit(far.call)
        await settle()
        far.error = None
        pool.reset_breakers(key="a")
        await settle()
        assert pool.ledger().running == pool.ledger().completed == 0  # the pool's own is open
        pool.reset_breakers()
        await settle()
        assert pool.ledger().queued == 0
        assert len(pool.engine.timers) == 0
        assert clock.monotonic_s() == 0


async def test_a_reset_of_one_key_leaves_the_others_open() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=2, key_breaker=STRICT) as pool:
        jobs = {
            key: [await pool.options(key=key).submit(far.call) for _ in range(5)]
            for key in ("a", "b")
        }
        await settle()
        far.error = None
        pool.reset_breakers(key="a")
        await settle()
        assert all(job.done() for job in jobs["a"])
        assert sum(job.done() for job in jobs["b"]) == 3
        await clock.advance(30)


async def test_a_reset_of_no_key_is_for_the_jobs_without_one() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=2, key_breaker=STRICT) as pool:
        jobs = {
            key: [await pool.options(key=key).submit(far.call) for _ in range(5)]
            for key in (None, "b")
        }
        await settle()
        far.error = None
        pool.reset_breakers(key=None)
        await settle()
        assert all(job.done() for job in jobs[None])
        assert sum(job.done() for job in jobs["b"]) == 3
        pool.reset_breakers()
        await settle()
        assert all(job.done() for job in jobs["b"])


async def test_a_reset_of_no_key_leaves_the_pools_own_breaker_open() -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(clock=clock, workers=2, breaker=STRICT) as pool:
        jobs = await many(pool, far, 5)
        far.error = None
        pool.reset_breakers(key=None)
        await settle()
        assert not jobs[-1].done()
        pool.reset_breakers()
        await settle()
        assert jobs[-1].done()


async def test_a_job_that_fails_and_waits_burns_no_attempt_of_its_policy() -> None:
    clock = VirtualClock(auto=True)
    far = Far(clock)
    policy = RetryPolicy(delays=RetrySchedule((1.0, 1.0, 1.0)))
    async with Pool(clock=clock, workers=1, breaker=STRICT) as pool:
        job = await pool.options(retry=policy).submit(far.call)
        outcome = await job.outcome()
        assert outcome.attempts == 4
    assert far.starts_s == [0, 1, 2, 32]


@pytest.mark.parametrize(
    "holds",
    [
        PoolSettings(breaker=STRICT, queue_size=500),
        PoolSettings(rate="1/h", queue_size=500),
        PoolSettings(rate="1/h", breaker=STRICT, queue_size=500),
        PoolSettings(key_rate="1/h", queue_size=500),
        PoolSettings(key_breaker=STRICT, queue_size=500),
    ],
)
async def test_no_worker_is_added_while_jobs_are_held_back(holds: PoolSettings) -> None:
    clock = VirtualClock()
    far = Far(clock)
    async with Pool(holds, clock=clock, workers_min=2, workers_max=10) as pool:
        await many(pool, far, 4)
        assert pool.ledger().queued > 0
        await many(pool, far, 300)
        for _ in range(28):
            await clock.advance(1)
            await pool.submit(far.call)
        assert pool.numbers().workers == 2
        assert pool.numbers().scale_ups == 0
        assert pool.health().ready
        await pool.close(0)


async def test_a_job_that_its_caller_runs_passes_breakers_by() -> None:
    clock = VirtualClock()
    far = Far(clock)
    far.error = None
    async with Pool(
        clock=clock, workers=1, queue_size=1, overflow="caller runs", key_breaker=STRICT
    ) as pool:
        slow = await pool.submit(clock.sleep_s, 10)
        await settle()
        await pool.submit(far.call)
        by_caller = asyncio.create_task(pool.options(key="new").submit(far.call))
        await settle()
        await clock.advance(10)
        assert await (await by_caller) == "up"
        await slow
        assert pool.ledger().balanced
