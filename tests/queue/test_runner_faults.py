"""Runs whose handlers break, or whose far side is out of reach."""

import asyncio
import itertools
import os
from typing import cast

import pytest

from mailrace.errors import ConflictError, RejectedError, UnavailableError
from mailrace.queue import (
    Attempted,
    ClaimedJob,
    End,
    Gate,
    JobState,
    Result,
    Step,
)
from mailrace.queue.journal import boot_id, read_journal
from tests.queue.houses import counts, fill
from tests.queue.world import OK, Recorder, World


class Unprintable(Exception):  # noqa: N818 - it is what it is
    def __str__(self) -> str:
        raise ValueError("no text either")


class Odd:
    """Handlers that break their contract, each in its way."""

    @staticmethod
    async def raises(job: ClaimedJob, gate: Gate) -> Result:
        raise ValueError("bad template")

    @staticmethod
    async def raises_unprintable(job: ClaimedJob, gate: Gate) -> Result:
        raise Unprintable

    @staticmethod
    async def raises_a_surrogate(job: ClaimedJob, gate: Gate) -> Result:
        raise FileNotFoundError("caf\udce9.html")

    @staticmethod
    async def raises_conflict(job: ClaimedJob, gate: Gate) -> Result:
        raise ConflictError("something of its own")

    @staticmethod
    async def raises_timeout(job: ClaimedJob, gate: Gate) -> Result:
        raise TimeoutError

    @staticmethod
    async def is_cancelled_within(job: ClaimedJob, gate: Gate) -> Result:
        raise asyncio.CancelledError("of a future of its own")

    @staticmethod
    async def answers_nothing(job: ClaimedJob, gate: Gate) -> Result:
        return cast("Result", None)

    @staticmethod
    async def takes_an_illegal_step(job: ClaimedJob, gate: Gate) -> Result:
        return Result(Step.REVIVE, "", "")


ODD = sorted(name for name in vars(Odd) if not name.startswith("_"))


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("name", ODD)
async def test_a_fault_fails_its_own_job_and_no_worker(
    world: World, name: str, *, committed: bool
) -> None:
    batch_id = await fill(world.store, 30)
    good, odd = Recorder(), getattr(Odd, name)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        if job.id % 10:
            return await good(job, gate)
        if committed:
            gate.commit()
        result: Result = await odd(job, gate)
        return result

    seen: list[Attempted] = []
    assert await world.run(handler, batch_id, workers=2, on_attempt=seen.append) is End.ALL_FINAL
    expected = JobState.UNCERTAIN if committed else JobState.FAILED
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 27, expected: 3}
    assert {one.worker for one in seen[-10:]} == {1, 2}
    (reason,) = await world.store.reasons(batch_id)
    assert reason.reason.startswith("fault: ")
    await world.assert_nothing_is_left()


async def test_a_text_that_nothing_can_encode_is_made_one_that_can(world: World) -> None:
    batch_id = await fill(world.store, 1)

    async def answer(job: ClaimedJob) -> Result:
        return Result(Step.FAIL, "550 \ud800", "é \udcff")

    await world.run(Recorder(answer), batch_id)
    (reason,) = await world.store.reasons(batch_id)
    assert (reason.reason, reason.detail) == ("550 \\ud800", "é \\udcff")


async def test_a_follower_that_fails_ends_the_run_and_not_the_jobs(world: World) -> None:
    batch_id = await fill(world.store, 50)
    handler = Recorder()

    def follow(attempted: Attempted) -> None:
        if len(handler.committed) >= 10:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await world.run(handler, batch_id, on_attempt=follow)
    now = await counts(world.store, batch_id)
    assert now[JobState.COMPLETED] == len(handler.committed) < 50
    assert now == {
        JobState.COMPLETED: len(handler.committed),
        JobState.AVAILABLE: 50 - len(handler.committed),
    }
    await world.assert_nothing_is_left()


async def test_a_worker_pauses_and_doubles_its_pause(world: World) -> None:
    batch_id = await fill(world.store, 3)
    tried_s: list[float] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        tried_s.append(world.clock.monotonic_s())
        if len(tried_s) < 5:
            raise UnavailableError("connection refused")
        gate.commit()
        return OK

    runner = world.runner(handler, batch_id, workers=1)
    assert await runner.run() is End.ALL_FINAL
    pauses_s = [later - sooner for sooner, later in itertools.pairwise(tried_s)]
    assert pauses_s[:4] == pytest.approx([1, 2, 4, 8])
    assert pauses_s[4:] == pytest.approx([0, 0], abs=0.2)
    assert await world.attempts(batch_id) == {1}
    assert runner.tally.trouble is None
    await world.assert_nothing_is_left()


async def test_what_was_committed_and_taken_back_runs_again(world: World) -> None:
    """A pipelined 421: the bytes are out, and the answer says that nothing was taken."""
    batch_id = await fill(world.store, 1)
    noted: list[list[Step]] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        (journal,) = world.journals.iterdir()
        finished = read_journal(journal, boot_id()).finished
        noted.append([record.step for record in finished])
        gate.commit()
        if len(noted) == 1:
            raise UnavailableError("421")
        return OK

    await world.run(handler, batch_id)
    assert noted == [[], [Step.RELEASE]]
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 1}
    await world.assert_nothing_is_left()


async def test_a_journal_that_cannot_be_written_holds_the_job_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await fill(world.store, 4)
    handler, write, failures = Recorder(), os.write, iter(range(3))

    def full(file: int, line: bytes) -> int:
        if line.startswith(b"[") and next(failures, None) is not None:
            raise OSError(28, "No space left on device")
        return write(file, line)

    monkeypatch.setattr(os, "write", full)
    world.journals.mkdir()
    assert await world.run(handler, batch_id, workers=1) is End.ALL_FINAL
    assert next(failures, None) is None
    assert handler.times == dict.fromkeys(handler.times, 1)
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 4}
    await world.assert_nothing_is_left()


async def test_a_rejection_ends_the_run_and_hands_everything_back(world: World) -> None:
    batch_id = await fill(world.store, 50)
    others = Recorder()

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        if len(others.committed) < 7:
            return await others(job, gate)
        raise RejectedError("535 wrong password")

    assert await world.run(handler, batch_id) is End.REJECTED
    now = await counts(world.store, batch_id)
    assert now == {
        JobState.COMPLETED: len(others.committed),
        JobState.AVAILABLE: 50 - len(others.committed),
    }
    assert world.clock.monotonic_s() < 1  # nobody sits out a pause
    assert await world.attempts(batch_id) == {0, 1}
    assert world.house.attempts(batch_id) == []
    await world.assert_nothing_is_left()


async def test_without_waiting_a_far_side_out_of_reach_is_left(world: World) -> None:
    batch_id = await fill(world.store, 50)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        raise UnavailableError("connection refused")

    assert await world.run(handler, batch_id, wait=False) is End.LEFT
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 50}
    assert world.clock.monotonic_s() < 1
    await world.assert_nothing_is_left()
