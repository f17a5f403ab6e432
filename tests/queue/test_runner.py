"""A run over a batch: real SQLite files, handlers of the test's own, virtual time."""

import asyncio
import itertools
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from mailrace.errors import ConflictError, MisuseError, RejectedError, UnavailableError
from mailrace.pool import Limiter, NoLimit, Rate, RateLimiter, RetrySchedule
from mailrace.queue import (
    Attempted,
    ClaimedJob,
    End,
    Gate,
    Handler,
    JobState,
    Result,
    Runner,
    RunnerSettings,
    Step,
)
from mailrace.queue.jobs import Finished, ProcessRow
from mailrace.queue.journal import Journal, boot_id, read_journal
from mailrace.queue.stores.sqlite import SqliteStore
from tests.queue.conftest import SqliteHouse, counts, ended, fill
from tests.support.clock import VirtualClock

OK = Result(Step.COMPLETE, "250", "taken")


class FlakyStore(SqliteStore):
    """Fails as often as it is told to."""

    finish_failures: int | None = 0
    claim_failures: int | None = 0
    fault: Exception | None = None

    async def finish(self, records: Sequence[Finished]) -> int:
        if self.fault is not None:
            raise self.fault
        if self.finish_failures is None or self.finish_failures > 0:
            self.finish_failures = self.finish_failures and self.finish_failures - 1
            raise UnavailableError("the store is not usable now")
        return await super().finish(records)

    async def claim(self, process_id: int, batch_id: int, limit: int) -> list[ClaimedJob]:
        if self.claim_failures is None or self.claim_failures > 0:
            self.claim_failures = self.claim_failures and self.claim_failures - 1
            raise UnavailableError("the store is not usable now")
        return await super().claim(process_id, batch_id, limit)


@dataclass(slots=True, kw_only=True)
class World:
    clock: VirtualClock
    house: SqliteHouse
    store: FlakyStore
    journals: Path

    def runner(
        self,
        handler: Handler,
        batch_id: int,
        *,
        workers: int = 5,
        retry: RetrySchedule | None = None,
        wait: bool = True,
        limiter: Limiter | None = None,
        store: SqliteStore | None = None,
        on_attempt: Callable[[Attempted], None] | None = None,
    ) -> Runner:
        return Runner(
            store=store or self.store,
            batch_id=batch_id,
            handler=handler,
            limiter=limiter or NoLimit(),
            settings=RunnerSettings(
                journals=self.journals,
                workers=workers,
                retry=retry or RetrySchedule((1.0, 2.0)),
                wait=wait,
            ),
            clock=self.clock,
            names=uuid4,
            on_attempt=on_attempt,
        )

    async def run(self, handler: Handler, batch_id: int, **settings: Any) -> End:
        async with asyncio.timeout(20):
            return await self.runner(handler, batch_id, **settings).run()

    async def assert_nothing_is_left(self) -> None:
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not [t for t in threading.enumerate() if t.name == "mailrace-lease"]
        assert await self.store.processes() == []
        assert list(self.journals.glob("*")) == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = VirtualClock(auto=True)
    house = SqliteHouse(tmp_path, clock)
    store = FlakyStore.open(house.path, clock)
    yield World(clock=clock, house=house, store=store, journals=tmp_path / "journals")
    await store.close()
    await house.close()


@dataclass(slots=True)
class Recorder:
    """A handler that commits, keeps count, and answers as it is told."""

    answer: Callable[[ClaimedJob], Awaitable[Result]] | None = None
    committed: list[ClaimedJob] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def __call__(self, job: ClaimedJob, gate: Gate) -> Result:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await gate.permit()
            await asyncio.sleep(0)
            gate.commit()
            self.committed.append(job)
            await asyncio.sleep(0)
            return OK if self.answer is None else await self.answer(job)
        finally:
            self.at_once -= 1

    @property
    def times(self) -> Counter[int]:
        return Counter(job.id for job in self.committed)


# The ordinary run


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


async def test_a_run_needs_a_worker(world: World) -> None:
    with pytest.raises(MisuseError, match="0 workers"):
        world.runner(Recorder(), 1, workers=0)


# Faults


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
        return Result(Step.RESEND, "", "")


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


# A far side that is out of reach


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
    assert {attempt.attempt for attempt in world.house.attempts(batch_id)} == {1}
    assert runner.tally.trouble is None
    await world.assert_nothing_is_left()


async def test_what_was_committed_and_taken_back_runs_again(world: World) -> None:
    """A pipelined 421: the bytes are out, and the answer says that nothing was taken."""
    batch_id = await fill(world.store, 1)
    readings: list[list[Finished]] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        (journal,) = world.journals.iterdir()
        readings.append(read_journal(journal, boot_id()).finished)
        gate.commit()
        if len(readings) == 1:
            raise UnavailableError("421")
        return OK

    await world.run(handler, batch_id)
    assert [[record.step for record in reading] for reading in readings] == [[], [Step.RELEASE]]
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
    assert {attempt.step for attempt in world.house.attempts(batch_id)} == {Step.COMPLETE}
    await world.assert_nothing_is_left()


async def test_without_waiting_a_far_side_out_of_reach_is_left(world: World) -> None:
    batch_id = await fill(world.store, 50)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        raise UnavailableError("connection refused")

    assert await world.run(handler, batch_id, wait=False) is End.LEFT
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 50}
    assert world.clock.monotonic_s() < 1
    await world.assert_nothing_is_left()


# Retries


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


# Stopping


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

    def slow(process_id: int, batch_id: int, limit: int) -> str:
        claiming.set()
        go_on.wait()
        return claim(process_id, batch_id, limit)

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


# Leases


async def rescue_all(store: SqliteStore) -> None:
    released = Finished(0, 0, Step.RELEASE, JobState.AVAILABLE, at_ms=1)
    for process in await store.processes():
        assert await store.rescue(process, [], rest=released) is not None


async def test_a_session_that_was_rescued_goes_on_under_new_leases(world: World) -> None:
    batch_id = await fill(world.store, 40)
    other = world.house.open()
    all_out, rescued = asyncio.Event(), asyncio.Event()
    committed: Counter[tuple[int, int]] = Counter()
    begun = 0

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        nonlocal begun
        begun += 1
        if begun <= 4:
            if begun == 4:
                all_out.set()
            await rescued.wait()
        gate.commit()
        committed[job.id, job.lease] += 1
        return OK

    runner = world.runner(handler, batch_id, workers=4)
    running = asyncio.create_task(runner.run())
    await all_out.wait()
    await rescue_all(other)
    assert runner._workers.session is not None
    runner._workers.session.expire()  # what the thread that renews does when it finds out
    rescued.set()
    assert await running is End.ALL_FINAL
    assert set(committed.values()) == {1}
    assert len({job_id for job_id, _ in committed}) == len(committed) == 40
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 40}
    await world.assert_nothing_is_left()


async def test_a_job_of_a_lost_lease_does_not_come_back(world: World) -> None:
    """Handed back under a new session it would go out under a lease that is no longer its own."""
    batch_id = await fill(world.store, 1)
    out, taken_over = asyncio.Event(), asyncio.Event()
    leases: list[int] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        leases.append(job.lease)
        if len(leases) == 1:
            out.set()
            await taken_over.wait()
            raise UnavailableError("connection refused")
        gate.commit()
        taken_over.set()
        return OK

    running = asyncio.create_task(world.run(handler, batch_id, workers=2))
    await out.wait()
    await rescue_all(world.house.open())
    assert await running is End.ALL_FINAL
    assert leases == sorted(set(leases))
    assert len(leases) == 2
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 1}
    await world.assert_nothing_is_left()


async def test_a_run_outlives_its_leases(world: World) -> None:
    """Virtual time outruns the thread that renews: sessions end and begin, jobs end once."""
    batch_id = await fill(world.store, 3)

    async def answer(job: ClaimedJob) -> Result:
        return OK if job.attempt == 3 else Result(Step.RETRY, "451", "later")

    handler = Recorder(answer)
    assert await world.run(handler, batch_id, retry=RetrySchedule((100.0, 200.0))) is End.ALL_FINAL
    assert set(handler.times.values()) == {3}
    assert world.clock.monotonic_s() > 300
    await world.assert_nothing_is_left()


async def test_two_runs_at_once_share_the_work(world: World) -> None:
    batch_id = await fill(world.store, 300)

    async def answer(job: ClaimedJob) -> Result:
        await world.clock.sleep_s(0.05)
        return OK

    one, other = Recorder(answer), Recorder(answer)
    ends = await asyncio.gather(
        world.run(one, batch_id, workers=3),
        world.run(other, batch_id, workers=3, store=world.house.open()),
    )
    assert set(ends) == {End.ALL_FINAL}
    assert one.committed
    assert other.committed
    assert one.times + other.times == dict.fromkeys(one.times | other.times, 1)
    assert len(one.committed) + len(other.committed) == 300
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 300}
    await world.assert_nothing_is_left()


async def test_a_run_waits_for_what_others_hold(world: World) -> None:
    """All final means all: also what another process has in hand."""
    batch_id = await fill(world.store, 2)
    other = world.house.open()
    journal = Journal.create(world.journals / "other.journal", boot_id())
    process_id = await other.register("other.journal", 30)
    jobs = await other.claim(process_id, batch_id, 1)
    handler = Recorder()
    running = asyncio.create_task(world.run(handler, batch_id))
    await world.clock.sleep_s(5)
    assert not running.done()
    await other.finish(ended(jobs))
    await other.retire(process_id)
    journal.close()
    assert await running is End.ALL_FINAL
    assert len(handler.committed) == 1
    await world.assert_nothing_is_left()


# A store that fails


async def test_a_store_that_fails_for_a_while_gets_everything(world: World) -> None:
    batch_id = await fill(world.store, 200)
    world.store.finish_failures = 5
    handler = Recorder()
    assert await world.run(handler, batch_id) is End.ALL_FINAL
    assert world.store.finish_failures == 0
    assert set(handler.times.values()) == {1}
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 200}
    await world.assert_nothing_is_left()


async def test_nothing_acknowledged_runs_again_after_the_store_was_lost(world: World) -> None:
    batch_id = await fill(world.store, 200)
    world.store.finish_failures = world.store.claim_failures = 0
    handler = Recorder()

    async def answer(job: ClaimedJob) -> Result:
        if len(handler.committed) == 20:
            world.store.finish_failures = world.store.claim_failures = None
        return OK

    handler.answer = answer
    with pytest.raises(UnavailableError, match="not usable"):
        await world.run(handler, batch_id)
    assert len(handler.committed) < 200
    assert len(list(world.journals.iterdir())) == 1
    world.store.finish_failures = world.store.claim_failures = 0
    second = Recorder()
    assert await world.run(second, batch_id) is End.ALL_FINAL
    assert not set(handler.times) & set(second.times)
    # What had been claimed and not begun is no reason for doubt.
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 200}
    await world.assert_nothing_is_left()


async def test_what_was_never_begun_is_not_uncertain_after_the_store_was_lost(
    world: World,
) -> None:
    batch_id = await fill(world.store, 50)
    world.store.finish_failures = None

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        raise RejectedError("535 wrong password")

    with pytest.raises(UnavailableError, match="not usable"):
        await world.run(handler, batch_id)
    assert JobState.RUNNING in await counts(world.store, batch_id)
    world.store.finish_failures = 0
    assert await world.run(Recorder(), batch_id) is End.ALL_FINAL
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 50}
    await world.assert_nothing_is_left()


async def test_while_the_store_cannot_be_read_what_is_in_flight_is_finished(world: World) -> None:
    batch_id = await fill(world.store, 20)
    all_out, reply = asyncio.Event(), asyncio.Event()

    async def answer(job: ClaimedJob) -> Result:
        if handler.at_once == 5:
            all_out.set()
        await reply.wait()
        return OK

    handler = Recorder(answer)
    running = asyncio.create_task(world.run(handler, batch_id))
    await all_out.wait()
    world.store.claim_failures = None
    await world.clock.sleep_s(10)
    reply.set()
    with pytest.raises(UnavailableError, match="not usable"):
        await running
    assert await counts(world.store, batch_id) == {
        JobState.COMPLETED: len(handler.committed),
        JobState.AVAILABLE: 20 - len(handler.committed),
    }
    await world.assert_nothing_is_left()


async def test_a_store_that_breaks_for_good_ends_the_run(world: World) -> None:
    batch_id = await fill(world.store, 30)
    world.store.fault = ConflictError("the ledger does not add up")
    handler = Recorder()
    with pytest.raises(ConflictError, match="ledger"):
        await world.run(handler, batch_id)
    world.store.fault = None
    second = Recorder()
    assert await world.run(second, batch_id) is End.ALL_FINAL
    assert not set(handler.times) & set(second.times)
    await world.assert_nothing_is_left()


async def test_a_renewal_that_fails_is_tried_again(world: World) -> None:
    process_id = await world.store.register("j", 30)
    rows: list[ProcessRow] = await world.store.processes()
    world.clock.move_to(world.clock.monotonic_s() + 5)
    assert await asyncio.to_thread(world.store.renewer(process_id, 30))
    assert (await world.store.processes())[0].expires_ms == rows[0].expires_ms + 5000
