"""Notes of what begins: shared, told to everybody who waits, and always there before the start."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import pytest

from mailrace.errors import ConflictError, UnavailableError
from mailrace.queue import ClaimedJob, End, Gate, JobState, Result, queue_of
from mailrace.queue.begun import Begun
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.kinds import Handlers, JobInfo
from mailrace.queue.processes import NewProcess
from mailrace.queue.session import Session
from tests.queue.houses import add, claim_of, counts, fill, numbered
from tests.queue.world import OK, FlakyStore, World

TURN_S = 0.01


class NotingStore(FlakyStore):
    """One whose notes take a while, as over a network.

    Attributes:
        asked: The jobs of each call that has begun.
        noted: Those of the calls that have returned.
        failures: What the next calls raise.
        gone: Jobs whose leases are not the process's any more.
    """

    marks_begun = True
    asked: list[list[tuple[int, int]]]
    noted: list[tuple[int, int]]
    failures: list[Exception]
    gone: set[int]

    async def begin(self, process_id: int, jobs: Sequence[tuple[int, int]]) -> list[int]:
        self.asked.append(list(jobs))
        await self._clock.sleep_s(TURN_S)
        if self.failures:
            raise self.failures.pop(0)
        self.noted += jobs
        return [job_id for job_id, _ in jobs if job_id in self.gone]


@pytest.fixture
async def noting(world: World) -> AsyncIterator[NotingStore]:
    store = NotingStore.open(world.house.path, world.clock)
    store.asked, store.noted, store.failures, store.gone = [], [], [], set()
    yield store
    await store.close()


@pytest.fixture
async def session(world: World) -> AsyncIterator[Session]:
    session = await Session.open(
        world.store,
        world.place,
        name=uuid4(),
        clock=world.clock,
        process=NewProcess(journal=""),
    )
    yield session
    await session.close(keep_journal=False)


async def claimed(world: World, session: Session, jobs: int) -> list[ClaimedJob]:
    batch_id = await fill(world.store, jobs)
    return await claim_of(world.store, session.process_id, jobs, queue_of(batch_id))


async def test_jobs_that_begin_together_share_a_note(
    world: World, noting: NotingStore, session: Session
) -> None:
    jobs = await claimed(world, session, 40)
    begun = Begun(noting)
    first = [asyncio.create_task(begun.note(session, job)) for job in jobs[:20]]
    await world.clock.sleep_s(TURN_S / 2)
    rest = [asyncio.create_task(begun.note(session, job)) for job in jobs[20:]]
    await asyncio.gather(*first)
    assert not any(task.done() for task in rest)
    await asyncio.gather(*rest)
    assert [len(asked) for asked in noting.asked] == [20, 20]
    assert noting.noted == [(job.id, job.lease) for job in jobs]
    await begun.note(session, jobs[0])  # and it goes on after it had nothing to do
    assert len(noting.asked) == 3


@pytest.mark.parametrize("error", [UnavailableError("gone"), ConflictError("no"), OSError("odd")])
async def test_a_note_that_fails_fails_everybody_who_waits_for_it_and_nobody_else(
    world: World, noting: NotingStore, session: Session, error: Exception
) -> None:
    jobs = await claimed(world, session, 6)
    begun = Begun(noting)
    noting.failures.append(error)
    first = [asyncio.create_task(begun.note(session, job)) for job in jobs[:3]]
    await world.clock.sleep_s(TURN_S / 2)
    rest = [asyncio.create_task(begun.note(session, job)) for job in jobs[3:]]
    ends = await asyncio.gather(*first, *rest, return_exceptions=True)
    assert ends == [error, error, error, None, None, None]
    assert noting.noted == [(job.id, job.lease) for job in jobs[3:]]


async def test_one_that_is_cancelled_while_it_waits_disturbs_nobody(
    world: World, noting: NotingStore, session: Session
) -> None:
    jobs = await claimed(world, session, 3)
    begun = Begun(noting)
    waiting = [asyncio.create_task(begun.note(session, job)) for job in jobs]
    await world.clock.sleep_s(TURN_S / 2)
    waiting[0].cancel()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1:] == [None, None]


async def test_a_lease_that_has_run_out_notes_nothing(
    world: World, noting: NotingStore, session: Session
) -> None:
    (job,) = await claimed(world, session, 1)
    session.expire()
    with pytest.raises(ConflictError, match="has run out"):
        await Begun(noting).note(session, job)
    assert noting.asked == []


async def test_a_job_that_another_process_has_by_now_does_not_begin_and_the_others_do(
    world: World, noting: NotingStore, session: Session
) -> None:
    jobs = await claimed(world, session, 3)
    noting.gone = {jobs[1].id}
    begun = Begun(noting)
    notes = [begun.note(session, job) for job in jobs]
    first, second, third = await asyncio.gather(*notes, return_exceptions=True)
    assert (first, third) == (None, None)
    assert isinstance(second, ConflictError)
    assert f"the lease of job {jobs[1].id} has run out" in str(second)


async def test_no_attempt_begins_before_its_note_is_there(
    world: World, noting: NotingStore
) -> None:
    batch_id = await fill(world.store, 60)
    early: list[int] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        if (job.id, job.lease) not in noting.noted:
            early.append(job.id)
        gate.commit()
        return OK

    assert await world.run(handler, batch_id, store=noting, workers=10) is End.ALL_FINAL
    assert early == []
    assert len(noting.noted) == 60
    assert len(noting.asked) <= 30
    await world.assert_nothing_is_left()


async def test_an_attempt_whose_note_fails_does_not_begin_and_is_not_counted(
    world: World, noting: NotingStore
) -> None:
    batch_id = await fill(world.store, 4)
    noting.failures = [UnavailableError("out of reach")] * 3
    begun: list[int] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        begun.append(job.id)
        gate.commit()
        return OK

    assert await world.run(handler, batch_id, store=noting, workers=2) is End.ALL_FINAL
    assert sorted(begun) == [1, 2, 3, 4]
    assert noting.failures == []
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 4}
    assert await world.attempts(batch_id) == {1}
    await world.assert_nothing_is_left()


async def test_a_chunk_whose_note_fails_does_not_begin_and_its_worker_pauses(
    world: World, noting: NotingStore
) -> None:
    handlers, given = Handlers(), list[int]()

    @handlers.register("kind", chunk=10, at_most_once=True)
    async def handler(payloads: list[Any], infos: list[JobInfo]) -> list[None]:
        assert {info.id for info in infos} <= {number for number, _ in noting.noted}
        given.append(len(payloads))
        return [None] * len(payloads)

    noting.failures = [UnavailableError("out of reach")] * 3
    await add(world.store, *numbered("j", 10))
    async with world.working(handlers, store=noting, concurrency=1, buffer=10):
        await world.until_counts({JobState.COMPLETED: 10})
    assert 7 <= world.clock.monotonic_s() < 9  # one second, two, and four
    assert sum(given) == 10
    assert {row.attempt for row in await world.store.find(JobFilter())} == {1}
    await world.assert_nothing_is_left()
