"""What a submit does when the queue is full, by policy, and what becomes of those who give way."""

import asyncio
import contextlib
from itertools import pairwise
from typing import Any

import pytest

from mailrace.pool import (
    Job,
    JobCancelledError,
    JobDroppedError,
    JobState,
    JobTimeoutError,
    PoolFullError,
    Reason,
    RetryPolicy,
    RetrySchedule,
)
from tests.pool.plugged import Plugged, plugged
from tests.support.clock import settle

AnyJob = Job[Any]


def fill(bench: Plugged, count: int, **options: Any) -> list[AnyJob]:
    view = bench.pool.options(**options)
    return [view.submit_nowait(bench.note, number) for number in range(count)]


def labels(bench: Plugged) -> list[object]:
    return [job.args[0] for job in bench.pool.engine.backlog.jobs()]


async def test_refuse_turns_away_at_once_whoever_asks() -> None:
    async with plugged(queue_size=2, overflow="refuse") as bench:
        fill(bench, 2)
        with pytest.raises(PoolFullError, match="submit later"):
            await bench.pool.submit(bench.note, "refused")
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "refused")
        assert bench.pool.ledger().refused == 2
        assert labels(bench) == [0, 1]


# Drop oldest.


async def test_drop_oldest_takes_the_new_one_and_ends_the_first_that_came() -> None:
    async with plugged(queue_size=2, overflow="drop oldest") as bench:
        stream = bench.pool.outcomes()
        told: list[AnyJob] = []
        oldest, _ = fill(bench, 2)
        oldest.add_done_callback(told.append)
        new = await bench.pool.submit(bench.note, "new")
        assert oldest.state is JobState.DROPPED
        assert oldest.reason is Reason.OVERFLOW
        assert told == [oldest]
        with pytest.raises(JobDroppedError, match="others needed its place"):
            await oldest
        outcome = await anext(stream)
        assert (outcome.job_id, outcome.reason) == (oldest.id, Reason.OVERFLOW)
        assert not oldest.cancel()
        await bench.unplug()
        assert bench.ran == [1, "new"]
        assert await new == "new"
        assert told == [oldest]
        assert bench.pool.ledger().dropped == 1


async def test_drop_oldest_goes_by_arrival_whatever_the_priority() -> None:
    async with plugged(queue_size=2, overflow="drop oldest") as bench:
        bench.pool.options(priority="high").submit_nowait(bench.note, "high")
        bench.pool.options(priority="low").submit_nowait(bench.note, "low")
        bench.pool.submit_nowait(bench.note, "new")
        assert labels(bench) == ["new", "low"]


async def test_ten_thousand_submits_to_a_queue_of_ten_leave_the_last_ten() -> None:
    async with plugged(queue_size=10, overflow="drop oldest") as bench:
        fill(bench, 10_000)
        assert labels(bench) == list(range(9990, 10_000))
        assert bench.pool.ledger().dropped == 9990
        assert bench.pool.ledger().refused == 0


async def test_a_place_that_was_made_goes_to_who_made_it_and_not_to_one_who_waits() -> None:
    async with plugged(queue_size=1, overflow="drop oldest") as bench:
        fill(bench, 1)
        waiting = asyncio.ensure_future(anext(bench.pool.map(bench.note, ["mapped"])))
        await settle()  # a map waits for room whatever the policy
        bench.pool.submit_nowait(bench.note, "new")
        await settle()
        assert labels(bench) == ["new"]
        assert bench.pool.ledger().dropped == 1
        await bench.unplug()
        assert await waiting == "mapped"


async def test_who_is_told_that_it_was_dropped_may_submit_and_cancel_there_and_then() -> None:
    async with plugged(queue_bytes=30, overflow="drop oldest") as bench:
        jobs = [bench.pool.submit_nowait(bench.note, letter * 10) for letter in "abc"]

        def react(_: AnyJob) -> None:
            jobs[1].cancel()
            with contextlib.suppress(PoolFullError):
                bench.pool.submit_nowait(bench.note, "r" * 10)

        jobs[0].add_done_callback(react)
        bench.pool.submit_nowait(bench.note, "n" * 20)
        assert jobs[1].state is JobState.CANCELLED
        assert bench.pool.ledger().balanced
        assert bench.pool.numbers().queued_bytes <= 30
        assert "n" * 20 in labels(bench)


async def test_as_many_are_dropped_as_the_bytes_of_the_new_one_take() -> None:
    async with plugged(queue_bytes=100, overflow="drop oldest") as bench:
        jobs = [bench.pool.submit_nowait(bench.note, "x" * 25) for _ in range(4)]
        bench.pool.submit_nowait(bench.note, "y" * 60)
        states = [job.state for job in jobs]
        assert states == [JobState.DROPPED] * 3 + [JobState.AVAILABLE]
        assert bench.pool.numbers().queued_bytes == 85


async def test_nobody_is_dropped_in_vain() -> None:
    async def failing() -> None:
        raise ValueError

    async with plugged(queue_bytes=100, overflow="drop oldest") as bench:
        retry = RetryPolicy(delays=RetrySchedule((10.0,)))
        bench.pool.options(retry=retry, size_bytes=80).submit_nowait(failing)
        await bench.unplug()
        await bench.plug()
        small = bench.pool.submit_nowait(bench.note, "x" * 20)
        with pytest.raises(PoolFullError):  # what waits for its retry does not give way
            bench.pool.submit_nowait(bench.note, "y" * 30)
        assert small.state is JobState.AVAILABLE
        small.cancel()
        await bench.clock.advance(10)


# Drop lowest.


async def test_drop_lowest_ends_the_latest_of_the_lowest_priority() -> None:
    async with plugged(queue_size=3, overflow="drop lowest") as bench:
        low = fill(bench, 2, priority="low")
        fill(bench, 1)
        bench.pool.options(priority="high").submit_nowait(bench.note, "high")
        assert [job.state for job in low] == [JobState.AVAILABLE, JobState.DROPPED]
        bench.pool.submit_nowait(bench.note, "normal")
        assert low[0].reason is Reason.OVERFLOW
        assert labels(bench) == ["high", 0, "normal"]


async def test_drop_lowest_refuses_who_is_no_better_than_the_lowest() -> None:
    async with plugged(queue_size=2, overflow="drop lowest") as bench:
        fill(bench, 2)
        for priority in ("normal", "low"):
            with pytest.raises(PoolFullError):
                await bench.pool.options(priority=priority).submit(bench.note, "no better")
        assert bench.pool.ledger().dropped == 0
        assert labels(bench) == [0, 1]


async def test_drop_lowest_drops_nobody_if_that_would_not_be_enough() -> None:
    async with plugged(queue_bytes=100, overflow="drop lowest") as bench:
        low = bench.pool.options(priority="low").submit_nowait(bench.note, "l" * 10)
        bench.pool.submit_nowait(bench.note, "n" * 90)
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "n" * 20)
        assert not low.done()
        bench.pool.submit_nowait(bench.note, "n" * 10)
        assert low.state is JobState.DROPPED


async def test_drop_lowest_goes_on_from_the_latest_to_the_earliest_and_upwards() -> None:
    async with plugged(queue_bytes=50, overflow="drop lowest") as bench:
        levels = (-1, -2, -2, 0, -1)
        jobs = [fill(bench, 1, priority=level, size_bytes=10)[0] for level in levels]
        bench.pool.options(size_bytes=30).submit_nowait(bench.note, "new")
        assert [job.state is JobState.DROPPED for job in jobs] == [False, True, True, False, True]
        with pytest.raises(PoolFullError):  # dropping the last low one would not be enough
            bench.pool.options(size_bytes=20).submit_nowait(bench.note, "too large")
        assert not jobs[0].done()


# Caller runs.


async def test_caller_runs_does_the_work_in_the_submit_beside_the_workers() -> None:
    async with plugged(queue_size=1, overflow="caller runs") as bench:
        fill(bench, 1)
        job = await bench.pool.submit(bench.note, "by the caller")
        assert job.state is JobState.COMPLETED
        assert bench.ran == ["by the caller"], "it does not wait its turn"
        await settle()
        assert bench.pool.numbers().workers == 1, "its worker came for it alone"
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "cannot run without waiting")


async def test_a_job_run_by_its_caller_fails_and_times_out_like_any_other() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async with plugged(queue_size=1, overflow="caller runs") as bench:
        fill(bench, 1)
        job = await bench.pool.submit(fail)
        with pytest.raises(ValueError, match="no"):
            await job
        never = asyncio.Event()
        slow = asyncio.ensure_future(bench.pool.options(timeout=5).submit(never.wait))
        await bench.clock.advance(5)
        with pytest.raises(JobTimeoutError):
            await (await slow)
        assert bench.pool.ledger().failed == 2
        assert len(bench.pool.dead_letters) == 2


async def test_a_caller_that_is_cancelled_takes_its_job_with_it() -> None:
    cleaned_up = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    async with plugged(queue_size=1, overflow="caller runs") as bench:
        fill(bench, 1)
        caller = asyncio.ensure_future(bench.pool.submit(work))
        await settle()
        assert bench.pool.ledger().running == 2
        caller.cancel()
        await settle()
        assert caller.cancelled()
        assert cleaned_up.is_set()
        assert bench.pool.ledger().cancelled == 1
        assert bench.pool.numbers().workers == 1


@pytest.mark.parametrize("turns", range(5))
async def test_a_caller_that_is_cancelled_at_any_turn_neither_loses_nor_doubles(turns: int) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    async with plugged(queue_size=1, overflow="caller runs") as bench:
        fill(bench, 1)
        room = bench.pool.engine.intake.room
        caller = asyncio.ensure_future(bench.pool.submit(work))
        for _ in range(turns):
            await asyncio.sleep(0)
            assert bench.pool.ledger().balanced
        caller.cancel()
        await settle()
        ledger = bench.pool.ledger()
        assert ledger.balanced
        assert ledger.queued == 1
        assert ledger.completed + ledger.cancelled == ledger.accepted - 2
        assert bench.pool.engine.intake.room == room
        assert bench.pool.numbers().workers == 1


async def test_a_job_run_by_its_caller_has_begun_and_cannot_expire() -> None:
    async with plugged(queue_size=1, overflow="caller runs") as bench:
        fill(bench, 1)
        release = asyncio.Event()
        caller = asyncio.ensure_future(bench.pool.options(expires=5).submit(release.wait))
        await bench.clock.advance(20)
        release.set()
        job = await caller
        assert job.state is JobState.COMPLETED
        assert bench.pool.ledger().expired == 0


async def test_a_caller_passes_the_rate_limit_like_everybody() -> None:
    async with plugged(queue_size=1, overflow="caller runs", rate="1/s") as bench:
        fill(bench, 1)
        started_s: list[float] = []

        async def work() -> None:
            started_s.append(bench.clock.monotonic_s())

        callers = [asyncio.ensure_future(bench.pool.submit(work)) for _ in range(3)]
        impatient = asyncio.ensure_future(bench.pool.submit(work))
        await bench.clock.advance(0.5)
        assert started_s == []
        impatient.cancel()
        await bench.clock.advance(30)
        await asyncio.gather(*callers)
        assert len(started_s) == 3
        assert started_s[0] >= 1, "the plug took the slot before"
        assert all(later - sooner >= 1 for sooner, later in pairwise(started_s))
        await bench.unplug()
        await bench.clock.advance(30)


async def test_no_caller_runs_anything_while_the_pool_is_paused() -> None:
    async with plugged(queue_size=1, overflow="caller runs") as bench:
        fill(bench, 1)
        bench.pool.pause()
        with pytest.raises(PoolFullError):
            await bench.pool.submit(bench.note, "not now")
        assert bench.ran == []
        bench.pool.resume()


async def test_a_closing_pool_ends_the_jobs_of_callers_too() -> None:
    bench = Plugged(queue_size=1, overflow="caller runs")
    await bench.pool.start()
    await bench.plug()
    fill(bench, 1)
    caller = asyncio.ensure_future(bench.pool.submit(asyncio.Event().wait))
    await settle()
    report = await bench.pool.close(0)
    assert (await caller).state is JobState.HANDED_BACK
    assert len(report.unfinished) == 3
    assert report.ledger.balanced


# Spill.


async def test_spill_fills_the_overflow_buffer_and_then_refuses() -> None:
    async with plugged(queue_size=2, overflow="spill", overflow_size=3) as bench:
        fill(bench, 5)
        numbers = bench.pool.numbers()
        assert (numbers.spilled, numbers.ledger.queued) == (3, 5)
        with pytest.raises(PoolFullError):
            await bench.pool.submit(bench.note, "too many")
        await bench.unplug()
        assert bench.ran == [0, 1, 2, 3, 4]
        assert bench.pool.numbers().spilled == 0


async def test_what_spilled_is_not_overtaken_by_what_comes_later() -> None:
    async with plugged(queue_size=1, overflow="spill") as bench:
        first, *_ = fill(bench, 3)
        first.cancel()
        bench.pool.submit_nowait(bench.note, "later")
        await bench.unplug()
        assert bench.ran == [1, 2, "later"]


async def test_what_spilled_can_be_cancelled_expires_and_moves_on_to_a_larger_queue() -> None:
    async with plugged(queue_size=1, overflow="spill") as bench:
        stays, doomed, *_ = fill(bench, 2)
        (short,) = fill(bench, 1, expires=5)
        assert doomed.cancel()
        with pytest.raises(JobCancelledError):
            await doomed
        await bench.clock.advance(5)
        assert short.state is JobState.EXPIRED
        assert bench.pool.numbers().spilled == 0
        moves, also = fill(bench, 2)
        bench.pool.reconfigure(queue_size=2)
        assert bench.pool.numbers().spilled == 1
        assert bench.pool.engine.intake.room == 0
        await bench.unplug()
        assert all(job.state is JobState.COMPLETED for job in (stays, moves, also))


async def test_a_closed_pool_hands_back_what_spilled() -> None:
    bench = Plugged(queue_size=1, overflow="spill")
    await bench.pool.start()
    await bench.plug()
    jobs = fill(bench, 3)
    report = await bench.pool.close(0)
    assert [job.state for job in jobs] == [JobState.HANDED_BACK] * 3
    assert [left.args for left in report.unfinished[1:]] == [(0,), (1,), (2,)]
    assert report.ledger.balanced


async def test_spilled_jobs_expire_before_anybody_is_refused() -> None:
    async with plugged(queue_size=1, overflow="spill", overflow_size=1) as bench:
        fill(bench, 2, expires=5)
        bench.clock.move_to(5.0)
        new = bench.pool.submit_nowait(bench.note, "new")
        await bench.unplug()
        assert bench.ran == ["new"]
        assert await new == "new"
        assert bench.pool.ledger().expired == 2


# Changes.


async def test_another_policy_holds_from_the_next_submit_on() -> None:
    async with plugged(queue_size=1) as bench:
        fill(bench, 1)
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "refused")
        bench.pool.reconfigure(overflow="drop oldest")
        bench.pool.submit_nowait(bench.note, "dropping")
        bench.pool.reconfigure(overflow="spill")
        bench.pool.submit_nowait(bench.note, "spilling")
        bench.pool.reconfigure(overflow="refuse")
        with pytest.raises(PoolFullError):
            await bench.pool.submit(bench.note, "refused")
        await bench.unplug()
        assert bench.ran == ["dropping", "spilling"]


async def test_overflow_leaves_retries_alone() -> None:
    async def failing() -> None:
        raise ValueError

    async with plugged(queue_size=1, overflow="drop oldest") as bench:
        retry = RetryPolicy(delays=RetrySchedule((10.0,)))
        job = bench.pool.options(retry=retry).submit_nowait(failing)
        await bench.unplug()
        with pytest.raises(PoolFullError, match="1 for their next attempt"):
            bench.pool.submit_nowait(bench.note, "no victim")
        assert job.state is JobState.RETRYABLE
        await bench.clock.advance(10)
        assert job.attempts == 2
