"""A pool that is changed while it works: all or nothing, and nothing is lost or stuck."""

import asyncio
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import (
    Allowance,
    BreakerSettings,
    JobState,
    PaceSettings,
    Pool,
    RateLimit,
    RetryPolicy,
    RetrySchedule,
)
from tests.pool.test_rate import most_in_a_window
from tests.support.clock import VirtualClock, settle

BREAKER = BreakerSettings(failures=2, break_s=30, jitter=0)
CHANGES: tuple[dict[str, Any], ...] = (
    {"rate": "5/s"},
    {"rate": "50/s, 200/min"},
    {"rate": None, "pace": None},
    {"rate": "20/s", "pace": PaceSettings()},
    {"key_rate": "2/s"},
    {"key_rate": None},
    {"worker_rate": "3/s"},
    {"worker_rate": None},
    {"breaker": BREAKER},
    {"breaker": None},
    {"key_breaker": BREAKER},
    {"key_breaker": BreakerSettings(failures=1, break_s=5)},
    {"key_breaker": None},
    {"fair_keys": True},
    {"fair_keys": False},
    {"workers": 1},
    {"workers_min": 1, "workers_max": 8},
    {"queue_size": 3},
    {"queue_size": 300},
    {"metrics": False},
    {"metrics": True},
    {"overflow": "spill"},
    {"overflow": "wait"},
)


BREAKERS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"breaker": BREAKER}, {"breaker": None}),
    ({"key_breaker": BREAKER}, {"key_breaker": None}),
)


@pytest.mark.parametrize(
    "changes",
    [
        {"queue_size": 7, "rate": "nonsense"},
        {"queue_size": 7, "workers_min": 5, "workers_max": 2},
        {"queue_size": 7, "job_timeout": 5},
        {"queue_size": 7, "breaker": None, "ageing": -1},
    ],
)
async def test_one_wrong_setting_changes_nothing(changes: dict[str, Any]) -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2, breaker=BREAKER) as pool:
        before = pool.settings
        with pytest.raises(MisuseError):
            pool.reconfigure(**changes)
        assert pool.settings is before
        assert pool.engine.intake.room == before.queue_size
        assert pool.numbers().workers == 2


steps = st.lists(
    st.tuples(st.sampled_from(CHANGES), st.sampled_from([0.0, 0.05, 0.5, 3.0, 40.0])),
    min_size=1,
    max_size=8,
)


@given(steps=steps, seed=st.integers(0, 2**16))
@settings(max_examples=80, deadline=None)
async def test_nothing_is_lost_and_nothing_stuck_whatever_is_changed(
    steps: list[tuple[dict[str, Any], float]], seed: int
) -> None:
    clock, random = VirtualClock(), Random(seed)
    policy = RetryPolicy(delays=RetrySchedule((0.5, 5.0)))
    ended: list[int] = []

    async def work(fails: bool, takes_s: float) -> None:
        await clock.sleep_s(takes_s)
        if fails:
            raise OSError

    async def submit(pool: Pool, count: int) -> None:
        for _ in range(count):
            view = pool.options(
                key=random.choice("abc"), retry=policy, priority=random.choice((0, 1, -1))
            )
            job = await view.submit(work, random.random() < 0.3, random.choice((0.0, 0.2, 2.0)))
            job.add_done_callback(lambda job: ended.append(job.id))

    async with Pool(clock=clock, random=random, workers=3, queue_size=30) as pool:
        submitting = [asyncio.create_task(submit(pool, 15))]
        await settle()
        for changes, wait_s in steps:
            pool.reconfigure(**changes)
            assert pool.ledger().balanced
            submitting.append(asyncio.create_task(submit(pool, 5)))
            await clock.advance(wait_s)
            assert pool.ledger().balanced
        pool.reconfigure(
            rate=None, pace=None, key_rate=None, worker_rate=None, breaker=None, key_breaker=None
        )
        await clock.advance(400)  # all attempts, one after the other
        assert all(task.done() for task in submitting)
        accepted = 15 + 5 * len(steps)
        ledger = pool.ledger()
        assert ledger.balanced
        assert ledger.unfinished == 0
        assert ledger.completed + ledger.failed == accepted
        assert sorted(ended) == sorted(set(ended))
        assert len(ended) == accepted
        # Nothing that held a job is left behind.
        assert not pool.engine.dispatch.held_back
        assert await (await pool.submit(asyncio.sleep, 0, "fresh")) == "fresh"
        assert pool.numbers().deaths == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"rate": "1/h"}, {"rate": None}),
        ({"rate": "1/h"}, {"rate": "1000/s"}),
        ({"key_rate": "1/h"}, {"key_rate": None}),
        ({"key_rate": "1/h"}, {"key_rate": "1000/s"}),
        ({"worker_rate": "1/h"}, {"worker_rate": None}),
        ({"worker_rate": "1/h"}, {"worker_rate": "1000/s"}),
    ],
)
async def test_who_was_held_goes_on_when_the_limit_is_lifted(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2, **before) as pool:
        jobs = [await pool.submit(asyncio.sleep, 0) for _ in range(10)]
        await clock.advance(5)
        assert pool.ledger().queued == 10 - (2 if "worker_rate" in before else 1)
        pool.reconfigure(**after)
        await clock.advance(1)
        assert all(job.done() for job in jobs)
        assert pool.numbers().idle == 2
        assert len(pool.engine.timers) == 0


@pytest.mark.parametrize(("on", "off"), BREAKERS)
async def test_who_waits_for_a_breaker_goes_on_when_it_is_taken_away(
    on: dict[str, Any], off: dict[str, Any]
) -> None:
    clock = VirtualClock()

    async def fail() -> None:
        raise OSError

    async with Pool(clock=clock, workers=2, **on) as pool:
        jobs = [await pool.submit(fail) for _ in range(10)]
        await clock.advance(5)
        assert pool.ledger().queued == 8
        pool.reconfigure(**off)
        await settle()
        assert all(job.done() for job in jobs)


@pytest.mark.parametrize(("on", "off"), BREAKERS)
async def test_a_breaker_that_comes_while_jobs_run_hears_nothing_of_them(
    on: dict[str, Any], off: dict[str, Any]
) -> None:
    clock = VirtualClock()

    async def fail() -> None:
        await clock.sleep_s(10)
        raise OSError

    async with Pool(clock=clock, workers=5) as pool:
        running = [await pool.options(key="a").submit(fail) for _ in range(5)]
        await settle()
        pool.reconfigure(**on)
        await clock.advance(10)
        assert all(job.state is JobState.FAILED for job in running)
        assert await (await pool.options(key="a").submit(asyncio.sleep, 0, 1)) == 1
        assert pool.engine.gates.breakers_open(clock.monotonic_s()) == 0
        assert pool.numbers().deaths == 0


@pytest.mark.parametrize(("on", "off"), BREAKERS)
async def test_a_breaker_that_goes_and_comes_anew_is_a_new_one(
    on: dict[str, Any], off: dict[str, Any]
) -> None:
    clock = VirtualClock()

    async def fail() -> None:
        await clock.sleep_s(10)
        raise OSError

    async with Pool(clock=clock, workers=5, **on) as pool:
        running = [await pool.options(key="a").submit(fail) for _ in range(5)]
        await settle()
        pool.reconfigure(**off)
        pool.reconfigure(**on)
        await clock.advance(10)
        assert all(job.done() for job in running)
        assert pool.ledger().balanced
        assert pool.engine.gates.breakers_open(clock.monotonic_s()) == 0


async def test_what_was_used_counts_against_the_new_rate() -> None:
    clock = VirtualClock()
    starts_s: list[float] = []

    async def start() -> None:
        starts_s.append(clock.monotonic_s())

    async with Pool(clock=clock, workers=5, queue_size=500, rate="100/min") as pool:
        for _ in range(300):
            await pool.submit(start)
        await clock.advance(30)
        changed_s = clock.monotonic_s()
        pool.reconfigure(rate="60/min")
        await clock.advance(180)
        await pool.close(0)
    after_s = [at_s for at_s in starts_s if at_s > changed_s]
    for at_s in after_s:
        assert sum(at_s - 60 < other_s <= at_s for other_s in starts_s) <= 60
    assert len(after_s) >= 100
    assert most_in_a_window(starts_s, 60.0) <= 100


async def test_a_shared_limit_is_not_changed_with_the_pool_that_leaves_it() -> None:
    clock = VirtualClock()
    shared = Allowance(RateLimit.parse("10/s"))
    async with (
        Pool(clock=clock, workers=2, rate=shared) as leaving,
        Pool(clock=clock, workers=2, rate=shared) as staying,
    ):
        leaving.reconfigure(rate="1/h")
        assert str(shared.limit) == "10/s"
        jobs = [await staying.submit(asyncio.sleep, 0) for _ in range(10)]
        await clock.advance(2)
        assert all(job.done() for job in jobs)


async def test_a_job_that_no_longer_fits_any_window_goes_alone_and_holds_nobody_for_ever() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=2, rate="100/s") as pool:
        pool.pause()
        large = await pool.options(cost=50).submit(asyncio.sleep, 0)
        small = [await pool.submit(asyncio.sleep, 0) for _ in range(3)]
        pool.reconfigure(rate="10/s")
        pool.resume()
        await clock.advance(20)
        assert all(job.state is JobState.COMPLETED for job in small)
        assert large.state is JobState.COMPLETED
        assert pool.numbers().deaths == 0
        assert pool.ledger().balanced


async def test_a_change_of_something_else_leaves_the_pace_as_it_is() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1, rate="100/s", pace=PaceSettings()) as pool:
        pool.engine.slowed()
        assert pool.numbers().pace == 0.5
        pool.resize(1, 5)
        assert pool.numbers().pace == 0.5
        pool.reconfigure(pace=None)
        assert pool.numbers().pace == 1.0


async def test_who_leaves_a_shared_limit_leaves_it_at_its_full_pace() -> None:
    clock = VirtualClock()
    shared = Allowance(RateLimit.parse("10/s"))
    async with Pool(clock=clock, workers=1, rate=shared, pace=PaceSettings(floor=0.01)) as pool:
        for _ in range(5):
            pool.engine.slowed()
            await clock.advance(2)
        pool.reconfigure(rate=None, pace=None)
        starts = 0
        for _ in range(1000):
            await clock.advance(0.01)
            starts += shared.take(clock.monotonic_s()) == 0
        assert starts > 90


async def test_a_smaller_queue_evicts_nobody_and_a_larger_one_lets_in_who_waits() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1, queue_size=5) as pool:
        pool.pause()
        for _ in range(5):
            await pool.submit(asyncio.sleep, 0)
        waiting = [asyncio.create_task(pool.submit(asyncio.sleep, 0)) for _ in range(4)]
        await settle()
        pool.reconfigure(queue_size=2)
        await settle()
        assert pool.ledger().queued == 5
        pool.reconfigure(queue_size=7)
        await settle()
        assert pool.ledger().queued == 7
        pool.resume()
        await clock.advance(0)
        assert all(task.done() for task in waiting)
        assert pool.ledger().completed == 9


async def test_options_of_jobs_that_were_submitted_stay() -> None:
    clock = VirtualClock()
    async with Pool(clock=clock, workers=1) as pool:
        pool.pause()
        job = await pool.options(timeout=5).submit(clock.sleep_s, 4)
        pool.reconfigure(job=pool.settings.job, cancel_grace=1.0)
        pool.resume()
        await clock.advance(4)
        assert job.state is JobState.COMPLETED
