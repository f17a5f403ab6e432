"""A run over a batch: real SQLite files, handlers of the test's own, virtual time."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from mailrace.errors import MisuseError, UnavailableError
from mailrace.pool import Rate, RateLimiter, RetrySchedule
from mailrace.queue import (
    Attempted,
    ClaimedJob,
    End,
    Gate,
    JobState,
    Result,
    Step,
)
from mailrace.queue.flows import Want
from tests.queue.houses import counts, fill
from tests.queue.world import OK, Recorder, World


@pytest.mark.parametrize("workers", [1, 3, 20])
async def test_every_job_gets_its_final_state(world: World, workers: int) -> None:
    batch_id = await fill(world.store, 600)
    steps = itertools.cycle([Step.COMPLETE, Step.FAIL, Step.LOSE])

    async def answer(job: ClaimedJob) -> Result:
        return Result(next(steps), "reason", "detail")

    handler, seen = Recorder(answer), list[Attempted]()
    runner = world.runner(handler, batch_id, workers=workers, on_attempt=seen.append)
    assert await runner.run() is End.ALL_FINAL
    assert await counts(world.store, batch_id) == {
        JobState.COMPLETED: 200,
        JobState.FAILED: 200,
        JobState.UNCERTAIN: 200,
    }
    assert set(handler.times.values()) == {1}
    assert handler.most_at_once == workers
    assert {one.worker for one in seen} == set(range(1, workers + 1))
    assert len(seen) == sum(runner.tally.ended.values()) == 600
    assert runner.finisher.refused == 0
    await world.assert_nothing_is_left()


async def test_a_batch_without_jobs_is_at_its_end(world: World) -> None:
    assert await world.run(Recorder(), await fill(world.store, 0)) is End.ALL_FINAL
    await world.assert_nothing_is_left()


async def test_the_limit_is_held_over_all_workers(world: World) -> None:
    batch_id = await fill(world.store, 100)
    limiter = RateLimiter(Rate(10, 1.0), world.clock)
    await world.run(Recorder(), batch_id, workers=7, limiter=limiter)
    assert 9.8 <= world.clock.monotonic_s() <= 11


async def test_stopping_does_not_wait_for_the_limit(world: World) -> None:
    batch_id = await fill(world.store, 20)
    limiter = RateLimiter(Rate(1, 3600.0), world.clock)
    handler = Recorder()
    runner = world.runner(
        handler, batch_id, workers=5, limiter=limiter, on_attempt=lambda _: runner.stop()
    )
    async with asyncio.timeout(5):
        assert await runner.run() is End.STOPPED
    assert world.clock.monotonic_s() < 60
    assert len(handler.committed) == 1
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 1, JobState.AVAILABLE: 19}
    await world.assert_nothing_is_left()


async def test_a_run_needs_a_worker(world: World) -> None:
    with pytest.raises(MisuseError, match="0 workers"):
        world.runner(Recorder(), 1, workers=0)


async def test_retries_run_when_they_are_due(world: World) -> None:
    batch_id = await fill(world.store, 1)
    at_s: list[float] = []

    async def answer(job: ClaimedJob) -> Result:
        at_s.append(world.clock.monotonic_s())
        assert job.attempt == len(at_s)
        return OK if len(at_s) == 4 else Result(Step.RETRY, "451", "later")

    retry = RetrySchedule((1.0, 2.5, 7.0))
    assert await world.run(Recorder(answer), batch_id, retry=retry) is End.ALL_FINAL
    waits_s = [later - sooner for sooner, later in itertools.pairwise(at_s)]
    assert waits_s == pytest.approx([1.0, 2.5, 7.0], abs=0.1)
    assert all(
        wait_s >= due_s for wait_s, due_s in zip(waits_s, (0.999, 2.499, 6.999), strict=True)
    )
    await world.assert_nothing_is_left()


async def test_when_the_attempts_are_used_up_a_job_has_failed(world: World) -> None:
    batch_id = await fill(world.store, 5)

    async def answer(job: ClaimedJob) -> Result:
        return Result(Step.RETRY, "451", "later")

    handler = Recorder(answer)
    assert await world.run(handler, batch_id) is End.ALL_FINAL
    assert set(handler.times.values()) == {3}
    assert await counts(world.store, batch_id) == {JobState.FAILED: 5}
    steps = [attempt.step for attempt in world.house.attempts(batch_id)]
    assert Counter(steps) == {"retry": 10, "fail": 5}


async def test_without_waiting_retries_are_left_to_the_next_run(world: World) -> None:
    batch_id = await fill(world.store, 6)
    again = itertools.count()

    async def answer(job: ClaimedJob) -> Result:
        return OK if next(again) % 2 else Result(Step.RETRY, "451", "later")

    retry = RetrySchedule((600.0,))
    assert await world.run(Recorder(answer), batch_id, wait=False, retry=retry) is End.LEFT
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 3, JobState.RETRYABLE: 3}
    await world.assert_nothing_is_left()
    world.clock.move_to(1000.0)
    again = itertools.count(1, 2)
    assert await world.run(Recorder(answer), batch_id, wait=False) is End.ALL_FINAL


async def test_stop_finishes_what_is_in_flight(world: World) -> None:
    batch_id = await fill(world.store, 50)
    all_out, reply = asyncio.Event(), asyncio.Event()

    async def answer(job: ClaimedJob) -> Result:
        if handler.at_once == 5:
            all_out.set()
        await reply.wait()
        return OK

    handler = Recorder(answer)
    runner = world.runner(handler, batch_id)
    running = asyncio.create_task(runner.run())
    await all_out.wait()
    runner.stop()
    runner.stop()
    reply.set()
    assert await running is End.STOPPED
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 5, JobState.AVAILABLE: 45}
    await world.assert_nothing_is_left()
    assert await world.run(Recorder(), batch_id) is End.ALL_FINAL


async def test_stop_wakes_whoever_waits(world: World) -> None:
    """In the pause after a failure, and before a retry that is far away."""
    batch_id = await fill(world.store, 2)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        runner.stop()
        raise UnavailableError("connection refused")

    runner = world.runner(handler, batch_id)
    assert await runner.run() is End.STOPPED
    assert world.clock.monotonic_s() < 1
    await world.assert_nothing_is_left()


async def test_stopped_before_it_began_nothing_is_done(world: World) -> None:
    batch_id = await fill(world.store, 2)
    runner = world.runner(Recorder(), batch_id)
    runner.stop()
    assert await runner.run() is End.STOPPED
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 2}
    await world.assert_nothing_is_left()


async def test_a_cancelled_run_knows_what_was_handed_over(world: World) -> None:
    batch_id = await fill(world.store, 50)
    all_out, never = asyncio.Event(), asyncio.Event()
    out: list[ClaimedJob] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        out.append(job)
        if len(out) == 5:
            all_out.set()
        if job.id % 2:
            gate.commit()
        await never.wait()
        return OK

    running = asyncio.create_task(world.runner(handler, batch_id).run())
    await all_out.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    committed = sum(job.id % 2 for job in out)
    assert await counts(world.store, batch_id) == {
        JobState.UNCERTAIN: committed,
        JobState.AVAILABLE: 50 - committed,
    }
    await world.assert_nothing_is_left()


async def test_jobs_that_were_being_claimed_are_handed_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while the store's thread is at it: the claim is committed all the same."""
    batch_id = await fill(world.store, 50)
    claiming, go_on = threading.Event(), threading.Event()
    claim = world.store._claim

    def slow(process_id: int, wants: Sequence[Want], once: Sequence[str]) -> str:
        claiming.set()
        go_on.wait()
        return claim(process_id, wants, once)

    monkeypatch.setattr(world.store, "_claim", slow)
    running = asyncio.create_task(world.runner(Recorder(), batch_id).run())
    await asyncio.to_thread(claiming.wait)
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 50}
    await world.assert_nothing_is_left()


async def test_cancelled_twice_it_leaves_no_task_behind(world: World) -> None:
    batch_id = await fill(world.store, 50)
    out, cleaning, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        gate.commit()
        out.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()
        return OK

    running = asyncio.create_task(world.runner(handler, batch_id, workers=1).run())
    await out.wait()
    running.cancel()
    await cleaning.wait()
    running.cancel()
    await asyncio.sleep(0)
    cleaned.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    # What it could not write any more is in its journal for the next run.
    assert await world.run(Recorder(), batch_id) is End.ALL_FINAL
    assert await counts(world.store, batch_id) == {JobState.UNCERTAIN: 1, JobState.COMPLETED: 49}
    await world.assert_nothing_is_left()
