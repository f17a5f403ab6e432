"""Runs that lose their leases, share their batch, or whose store fails."""

import asyncio
from collections import Counter

import pytest

from mailrace.errors import ConflictError, RejectedError, UnavailableError
from mailrace.pool import RetrySchedule
from mailrace.queue import (
    ClaimedJob,
    End,
    Gate,
    JobState,
    Result,
    Step,
    queue_of,
)
from mailrace.queue.journal import Journal, boot_id
from mailrace.queue.processes import Vitals
from mailrace.queue.stores.sqlite import SqliteStore
from tests.queue.houses import LEASE_S, claim_all, counts, ended, enter, fill, process_row
from tests.queue.world import OK, Recorder, World


async def rescue_all(store: SqliteStore) -> None:
    for process in await store.processes():
        assert await store.rescue(process, [], known=True) is not None


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
    process_id = await enter(other, "other.journal")
    jobs = await claim_all(other, process_id, queue_of(batch_id), 1)
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
    process_id = await enter(world.store)
    before = await process_row(world.store, process_id)
    world.clock.move_to(world.clock.monotonic_s() + 5)
    assert await asyncio.to_thread(world.store.renewer(process_id, LEASE_S), Vitals())
    after = await process_row(world.store, process_id)
    assert after.expires_ms == before.expires_ms + 5000
