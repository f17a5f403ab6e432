"""Handlers that do their worst, and what a run makes of it."""

import asyncio

import pytest

from mailrace.queue import ClaimedJob, End, Gate, JobState, Result
from tests.queue.houses import counts, fill
from tests.queue.world import OK, World

WAIT_S = 10.0


class Turn:
    """A limiter whose turn comes when the test says."""

    waiting = 1

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.come = asyncio.Event()

    async def wait(self) -> None:
        self.asked.set()
        await self.come.wait()


async def test_a_handler_that_exits_ends_its_own_job_only(world: World) -> None:
    batch_id = await fill(world.store, 3)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        await gate.permit()
        gate.commit()
        if job.id == 1:
            raise SystemExit(3)
        return OK

    assert await world.run(handler, batch_id, workers=2) is End.ALL_FINAL
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 2, JobState.UNCERTAIN: 1}
    await world.assert_nothing_is_left()


async def test_a_cancel_after_a_stop_ends_an_attempt_that_is_stuck_in_its_cleanup(
    world: World,
) -> None:
    batch_id = await fill(world.store, 1)
    begun, cleaning = asyncio.Event(), asyncio.Event()

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await asyncio.Event().wait()
        return OK

    runner = world.runner(handler, batch_id, workers=1)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(WAIT_S):
        await begun.wait()
        runner.stop()
        await cleaning.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 1}
    await world.assert_nothing_is_left()


async def test_a_recalled_attempt_whose_turn_comes_in_that_moment_is_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await fill(world.store, 1)
    turn, sent = Turn(), list[int]()

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        await gate.permit()
        gate.commit()
        await asyncio.sleep(0)  # the far side is only talked to here
        sent.append(job.id)
        return OK

    runner = world.runner(handler, batch_id, workers=1, limiter=turn)
    recall = runner._workers.recall

    def recall_in_turn() -> None:
        turn.come.set()
        recall()

    monkeypatch.setattr(runner._workers, "recall", recall_in_turn)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(WAIT_S):
        await turn.asked.wait()
        runner.stop()
        assert await task is End.STOPPED
    assert sent == []
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 1}
    await world.assert_nothing_is_left()
