"""Who is rescued, and when: the dead at once, the silent after a lease, nobody by a jump."""

import asyncio
from uuid import uuid4

import pytest

from mailrace.errors import ConflictError, UnavailableError
from mailrace.queue import ClaimedJob, End, Gate, JobState, Rescuer, Result
from mailrace.queue.journal import Journal, boot_id
from mailrace.queue.session import LEASE_S, Session
from tests.queue.houses import counts, fill
from tests.queue.world import OK, Recorder, World


async def claimed_by_another(world: World, batch_id: int) -> tuple[Journal, list[ClaimedJob]]:
    """A process that is there, holds its journal, and never renews."""
    journal = Journal.create(world.journals / "other.journal", boot_id())
    process_id = await world.store.register(journal.path.name, LEASE_S)
    return journal, await world.store.claim(process_id, batch_id, 10)


def rescuer(world: World) -> Rescuer:
    return Rescuer(world.store, world.journals, world.clock)


async def test_a_silent_process_is_rescued_after_a_lease_and_not_by_a_jump(world: World) -> None:
    batch_id = await fill(world.store, 3)
    journal, jobs = await claimed_by_another(world, batch_id)
    journal.started(jobs[0].id, jobs[0].lease)
    looking = rescuer(world)
    assert await looking.rescue() == 0
    world.clock.set_back(-10 * LEASE_S)  # the wall clock jumps ahead
    assert await looking.rescue() == 0
    await world.clock.sleep_s(LEASE_S - 0.1)
    assert await looking.rescue() == 0
    await world.clock.sleep_s(0.2)
    assert await looking.rescue() == 2
    journal.close(keep=True)
    assert await counts(world.store, batch_id) == {JobState.UNCERTAIN: 1, JobState.AVAILABLE: 2}


async def test_one_that_renews_is_left_alone(world: World) -> None:
    batch_id = await fill(world.store, 1)
    session = await Session.open(world.store, world.journals, boot_id(), uuid4(), world.clock)
    await world.store.claim(session.process_id, batch_id, 1)
    looking = rescuer(world)
    for _ in range(5):
        assert world.store.renewer(session.process_id, LEASE_S)()
        assert await looking.rescue() == 0
        await world.clock.sleep_s(LEASE_S / 2)
    assert await looking.rescue(own=session.process_id) == 0
    await world.clock.sleep_s(3 * LEASE_S)
    assert await looking.rescue(own=session.process_id) == 0
    await session.close(keep_journal=True)


async def test_a_lease_that_ends_at_the_gate_is_seen_after_the_line_is_written(
    world: World,
) -> None:
    """Whoever takes over reads the journal later: it finds the line, or the job does not go out."""
    batch_id = await fill(world.store, 1)
    session = await Session.open(world.store, world.journals, boot_id(), uuid4(), world.clock)
    (job,) = await world.store.claim(session.process_id, batch_id, 1)
    session.expire()
    with pytest.raises(ConflictError):
        session.departing(job)
    lines = session.journal.path.read_bytes().splitlines()
    assert lines[1] == b"[%d,%d]" % (job.id, job.lease)
    assert b"release" in lines[2]
    await session.close(keep_journal=True)
    assert await rescuer(world).rescue() == 0
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 1}


async def test_a_job_over_which_the_conversation_breaks_does_not_hold_up_the_others(
    world: World,
) -> None:
    batch_id = await fill(world.store, 30)
    tries: list[int] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        await gate.permit()
        if job.id == 1:
            tries.append(job.attempt)
            raise UnavailableError("the server hung up")
        gate.commit()
        return OK

    assert await world.run(handler, batch_id, workers=2) is End.ALL_FINAL
    assert await counts(world.store, batch_id) == {JobState.COMPLETED: 29, JobState.FAILED: 1}
    assert tries == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    (reason,) = await world.store.reasons(batch_id)
    assert reason.reason == "connection lost"
    await world.assert_nothing_is_left()


async def test_a_server_that_cannot_be_reached_costs_no_attempt(world: World) -> None:
    batch_id = await fill(world.store, 1)
    tries: list[int] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        tries.append(job.attempt)
        if len(tries) < 9:
            raise UnavailableError("connection refused")
        gate.commit()
        return OK

    assert await world.run(handler, batch_id, workers=1) is End.ALL_FINAL
    assert tries == [1] * 9


async def test_without_waiting_a_slow_refusal_ends_the_run(world: World) -> None:
    batch_id = await fill(world.store, 1)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        await world.clock.sleep_s(5)
        raise UnavailableError("no greeting")

    async with asyncio.timeout(20):
        runner = world.runner(handler, batch_id, workers=5, wait=False)
        assert await runner.run() is End.LEFT
    assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 1}
    await world.assert_nothing_is_left()


async def test_a_store_that_was_removed_ends_the_run(world: World) -> None:
    batch_id = await fill(world.store, 50)

    async def answer(job: ClaimedJob) -> Result:
        world.store.path.unlink(missing_ok=True)
        return OK

    with pytest.raises(UnavailableError, match="removed or replaced"):
        await world.run(Recorder(answer), batch_id, workers=2)


async def test_a_journal_without_a_process_is_cleared_away_once_nobody_holds_it(
    world: World,
) -> None:
    """Its process died before it was registered, or between leaving and removing it."""
    journal = Journal.create(world.journals / "early.journal", boot_id())
    await rescuer(world).rescue()
    assert journal.path.exists()
    journal.close(keep=True)
    await rescuer(world).rescue()
    assert not journal.path.exists()
