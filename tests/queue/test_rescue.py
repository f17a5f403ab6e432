"""Who is rescued, and when: the dead at once, the silent after a lease, nobody by a jump."""

import asyncio
from uuid import uuid4

import msgspec
import pytest

from mailrace.errors import ConflictError, UnavailableError
from mailrace.queue import ClaimedJob, End, Gate, JobState, Lane, Rescuer, Result, queue_of
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import DEATHS_MAX
from mailrace.queue.journal import Journal, boot_id
from mailrace.queue.processes import NewProcess, Vitals
from mailrace.queue.session import LEASE_S, Session
from tests.queue.houses import claim_of, counts, enter, fill, new
from tests.queue.houses import ended as records
from tests.queue.world import OK, Recorder, World


async def claimed_by_another(world: World, batch_id: int) -> tuple[Journal, list[ClaimedJob]]:
    """A process that is there, holds its journal, and never renews."""
    journal = Journal.create(world.journals / "other.journal", boot_id())
    process_id = await enter(world.store, journal.path.name, LEASE_S)
    return journal, await claimed(world, process_id, batch_id)


async def claimed(world: World, process_id: int, batch_id: int) -> list[ClaimedJob]:
    return await claim_of(world.store, process_id, 10, queue_of(batch_id), once=["kind"])


def rescuer(world: World) -> Rescuer:
    return Rescuer(world.store, world.place, world.clock)


async def opened(world: World) -> Session:
    return await Session.open(
        world.store,
        world.place,
        name=uuid4(),
        clock=world.clock,
        process=NewProcess(journal=""),
    )


async def test_a_silent_process_is_rescued_after_a_lease_and_not_by_a_jump(world: World) -> None:
    batch_id = await fill(world.store, 3)
    journal, jobs = await claimed_by_another(world, batch_id)
    journal.started(jobs[0].id, jobs[0].lease, once=True)
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
    session = await opened(world)
    await claimed(world, session.process_id, batch_id)
    looking = rescuer(world)
    for _ in range(5):
        assert world.store.renewer(session.process_id, LEASE_S)(Vitals())
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
    session = await opened(world)
    (job,) = await claimed(world, session.process_id, batch_id)
    session.expire()
    with pytest.raises(ConflictError):
        session.departing(job, once=True)
    lines = session.journal.path.read_bytes().splitlines()
    assert lines[1] == b"[%d,%d,1]" % (job.id, job.lease)
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


async def test_what_was_begun_is_uncertain_or_a_death_and_the_rest_is_released(
    world: World,
) -> None:
    """Four jobs of a process that dies: ended, out once, begun and repeatable, never begun."""
    batch_id = await fill(world.store, 4)
    journal, jobs = await claimed_by_another(world, batch_id)
    ended, out, begun, held = jobs
    for job in (ended, out, begun):
        journal.started(job.id, job.lease, once=job is not begun)
    result = msgspec.Raw(b'{"answer":[1,null,2]}')
    (record,) = records([ended], result=result)
    journal.finished(record)
    journal.close(keep=True)
    assert await rescuer(world).rescue() == 1
    assert await counts(world.store, batch_id) == {
        JobState.COMPLETED: 1,
        JobState.UNCERTAIN: 1,
        JobState.AVAILABLE: 2,
    }
    rows = {row.id: row for row in await world.store.find(JobFilter(batch_id=batch_id))}
    assert rows[ended.id].state is JobState.COMPLETED
    assert (rows[out.id].state, rows[out.id].reason) == (JobState.UNCERTAIN, "no reply")
    assert [(rows[job.id].attempt, rows[job.id].deaths) for job in (begun, held)] == [
        (0, 1),
        (0, 0),
    ]
    detail = await world.store.detail(ended.id)
    assert detail is not None
    assert detail.result == result
    await world.assert_nothing_is_left()


async def test_a_job_that_kills_its_process_three_times_is_a_dead_letter(world: World) -> None:
    batch_id = await fill(world.store, 2)
    for death in range(1, DEATHS_MAX + 1):
        journal, jobs = await claimed_by_another(world, batch_id)
        assert {(job.attempt, job.deaths) for job in jobs} == {(1, 0), (1, death - 1)}
        deadly = next(job for job in jobs if job.id == 1)
        journal.started(deadly.id, deadly.lease, once=False)
        journal.close(keep=True)
        await rescuer(world).rescue()
    assert await counts(world.store, batch_id) == {JobState.FAILED: 1, JobState.AVAILABLE: 1}
    (row,) = await world.store.find(JobFilter(states=(JobState.FAILED,)))
    assert (row.id, row.deaths, row.reason, row.category) == (1, 3, "worker died", "system")


@pytest.mark.parametrize("garbled", [False, True])
async def test_a_journal_that_is_not_trusted_leaves_once_jobs_uncertain(
    world: World, *, garbled: bool
) -> None:
    batch_id = await fill(world.store, 2)
    lane = Lane.TRANSACTIONAL
    await world.store.enqueue(new("again", batch_id=batch_id, lane=lane))
    journal, _ = await claimed_by_another(world, batch_id)
    journal.close(keep=True)
    if garbled:
        with journal.path.open("ab") as file:
            file.write(b"\0\0\0\0\n")
    else:
        journal.path.unlink()
    await rescuer(world).rescue()
    assert await counts(world.store, batch_id) == {JobState.UNCERTAIN: 2, JobState.AVAILABLE: 1}


async def test_a_process_of_another_node_is_rescued_when_the_store_says_so(world: World) -> None:
    """Its journal cannot be read from here, and one of the same name here is not its own."""
    batch_id = await fill(world.store, 2)
    mine = Journal.create(world.journals / "same.journal", boot_id())
    process_id = await world.store.register(
        NewProcess(journal="same.journal", node="elsewhere"), LEASE_S
    )
    await claimed(world, process_id, batch_id)
    looking = rescuer(world)
    await world.clock.sleep_s(LEASE_S - 0.1)
    assert await looking.rescue() == 0
    await world.clock.sleep_s(0.2)
    assert await looking.rescue() == 2
    assert await counts(world.store, batch_id) == {JobState.UNCERTAIN: 2}
    assert mine.path.exists()
    mine.close()


async def test_a_process_that_renews_while_it_is_rescued_keeps_its_jobs(world: World) -> None:
    batch_id = await fill(world.store, 1)
    journal, _ = await claimed_by_another(world, batch_id)
    (row,) = await world.store.processes()
    world.clock.move_to(world.clock.monotonic_s() + 1)
    assert world.store.renewer(row.id, LEASE_S)(Vitals())
    assert await world.store.rescue(row, [], known=True) is None
    assert await counts(world.store, batch_id) == {JobState.RUNNING: 1}
    journal.close()


async def test_repeatable_jobs_of_a_batch_are_retried_after_a_fault(world: World) -> None:
    """A lane of a job's own goes before what its batch says."""
    batch_id = await fill(world.store, 1)
    lane = Lane.TRANSACTIONAL
    await world.store.enqueue(new("again", batch_id=batch_id, lane=lane))
    tries: list[int] = []

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        tries.append(job.id)
        gate.commit()
        if len(tries) <= 2:
            raise ValueError("after it was out")
        return OK

    assert await world.run(handler, batch_id, workers=1) is End.ALL_FINAL
    assert tries == [1, 2, 2]
    assert await counts(world.store, batch_id) == {JobState.UNCERTAIN: 1, JobState.COMPLETED: 1}
    await world.assert_nothing_is_left()


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
