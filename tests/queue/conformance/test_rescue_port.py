"""What every store does with processes: leases, rescue, retirement."""

import asyncio

import msgspec
import pytest

from mailrace.errors import ConflictError
from mailrace.queue import JobState, Step, Store
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Lane
from mailrace.queue.processes import NewProcess, ProcessState, Vitals
from tests.queue.houses import (
    LEASE_S,
    Estate,
    House,
    add,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    new,
    now_ms,
    process_row,
    queue_counts,
)  # fmt: skip
from tests.support.clock import VirtualClock

PROCESS = NewProcess(
    journal="journal-ä", node="node", host="host", pid=17, version="1.2", supervisor="main",
    queues=("a", "b,c"), concurrency=50,
)  # fmt: skip
VITALS = Vitals(
    state=ProcessState.DRAINING, in_hand=3, held=40, completed=5, failed=6, stale_s=0.5,
    trouble="the 'relay' is down", breakers_open=("smtp", "ä"),
)  # fmt: skip
LONG_AGO_S = 1_000_000_000.0


async def renew(store: Store, process_id: int, vitals: Vitals | None = None) -> bool:
    return await asyncio.to_thread(store.renewer(process_id, LEASE_S), vitals or Vitals())


# Registering


async def test_a_process_id_is_never_used_again(house: House, store: Store) -> None:
    first = await enter(store)
    assert await store.retire(first)
    second = await enter(await house.opened())
    assert second > first
    row = await process_row(store, second)
    assert await store.rescue(row, [], known=True) == 0
    assert await enter(store) > second


async def test_a_process_is_seen_as_it_described_itself(house: House, store: Store) -> None:
    start = now_ms(house)
    process_id = await store.register(PROCESS, LEASE_S)
    row = await process_row(await house.opened(), process_id)
    assert {name: getattr(row, name) for name in PROCESS.__struct_fields__} == (
        msgspec.structs.asdict(PROCESS)
    )
    assert (row.started_ms, row.heartbeat_ms, row.expires_ms) == (start, start, start + 30_000)
    assert (row.expired, row.vitals) == (False, Vitals())


async def test_processes_are_listed_the_oldest_first(store: Store) -> None:
    ids = [await enter(store) for _ in range(4)]
    await renew(store, ids[0])
    await store.retire(ids[1])
    assert [row.id for row in await store.processes()] == [ids[0], ids[2], ids[3]]


async def test_a_heartbeat_prolongs_the_lease_and_keeps_the_vitals(
    house: House, store: Store
) -> None:
    start = now_ms(house)
    process_id = await store.register(PROCESS, LEASE_S)
    house.clock.move_to(12.0)
    assert await renew(store, process_id, VITALS)
    row = await process_row(store, process_id)
    assert (row.started_ms, row.heartbeat_ms) == (start, start + 12_000)
    assert (row.expires_ms, row.vitals) == (start + 42_000, VITALS)


async def test_one_renewer_beats_again_and_again(house: House, store: Store) -> None:
    process_id = await enter(store)
    beat = store.renewer(process_id, LEASE_S)
    for second in (1.0, 2.0, 3.0):
        house.clock.move_to(second)
        assert await asyncio.to_thread(beat, Vitals(held=int(second)))
        row = await process_row(store, process_id)
        assert (row.heartbeat_ms, row.vitals.held) == (now_ms(house), int(second))
    await store.retire(process_id)
    assert not await asyncio.to_thread(beat, Vitals())


async def test_a_process_that_is_gone_cannot_be_prolonged(store: Store) -> None:
    retired, rescued = await enter(store), await enter(store)
    await store.retire(retired)
    await store.rescue(await process_row(store, rescued), [], known=True)
    for process_id in (retired, rescued, 4711):
        assert not await renew(store, process_id)
    assert await store.processes() == []


async def test_a_lease_has_expired_when_its_time_is_over(house: House, store: Store) -> None:
    process_id = await enter(store)
    house.clock.move_to(29.999)
    assert not (await process_row(store, process_id)).expired
    house.clock.move_to(30.001)
    assert (await process_row(store, process_id)).expired
    assert await renew(store, process_id)  # late, but nobody took its jobs
    assert not (await process_row(store, process_id)).expired


# Rescue


async def test_rescue_writes_what_the_journal_says_and_then_the_rest(
    house: House, store: Store
) -> None:
    batch_id = await fill(store, 7)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, 6, queue=f"batch:{batch_id}", once=["kind"])
    await store.begin(process_id, [(job.id, job.lease) for job in jobs])
    records = [
        *ended(jobs[:2]), *ended(jobs[2:3], Step.LOSE), *ended(jobs[3:4], Step.RETRY, delay_ms=9),
    ]  # fmt: skip
    assert await store.rescue(await process_row(store, process_id), records, known=True) == 2
    assert house.states(batch_id) == {
        "k000": JobState.COMPLETED, "k001": JobState.COMPLETED, "k002": JobState.UNCERTAIN,
        "k003": JobState.RETRYABLE, "k004": JobState.AVAILABLE, "k005": JobState.AVAILABLE,
        "k006": JobState.AVAILABLE,
    }  # fmt: skip
    assert await counts(store, batch_id) == {
        JobState.COMPLETED: 2, JobState.UNCERTAIN: 1, JobState.RETRYABLE: 1, JobState.AVAILABLE: 3,
    }  # fmt: skip
    assert await store.processes() == []
    again = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    assert [job.attempt for job in again] == [1, 1, 1]  # no attempt was counted


async def test_the_records_win_over_what_begin_noted(store: Store) -> None:
    await add(store, "a", "b")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, once=["kind"])
    await store.begin(process_id, [(job.id, job.lease) for job in jobs])
    row = await process_row(store, process_id)
    records = [*ended(jobs[:1], Step.RELEASE), *ended(jobs[1:])]
    assert await store.rescue(row, records, known=False) == 0
    assert await queue_counts(store) == {JobState.AVAILABLE: 1, JobState.COMPLETED: 1}


async def test_what_is_unknown_becomes_uncertain_where_it_is_done_once(
    house: House, store: Store
) -> None:
    batch_id = await fill(store, 0)
    fields = {"batch_id": batch_id, "queue": "default"}
    await add(store, "begun", kind="mail", **fields)
    await add(store, "waiting", kind="mail", **fields)
    await add(store, "lane-begun", lane=Lane.CAMPAIGN, **fields)
    await add(store, "lane-waiting", lane=Lane.CAMPAIGN, **fields)
    await add(store, "again", kind="mail", lane=Lane.TRANSACTIONAL, **fields)
    await add(store, "page", **fields)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, once=["mail"])
    begun = [(job.id, job.lease) for job in (jobs[0], jobs[2])]
    await store.begin(process_id, begun)
    assert await store.rescue(await process_row(store, process_id), [], known=False) == 6
    unbegun = JobState.AVAILABLE if store.marks_begun else JobState.UNCERTAIN
    assert house.states(batch_id) == {
        "begun": JobState.UNCERTAIN, "waiting": unbegun, "lane-begun": JobState.UNCERTAIN,
        "lane-waiting": unbegun, "again": JobState.AVAILABLE, "page": JobState.AVAILABLE,
    }  # fmt: skip
    row = (await store.find(JobFilter(ids=(jobs[0].id,))))[0]
    assert (row.reason, row.attempt) == ("no reply", 1)
    kept = {(attempt.key, attempt.step, attempt.attempt) for attempt in house.attempts(batch_id)}
    assert {("begun", "lose", 1), ("lane-begun", "lose", 1)} <= kept
    assert not {"again", "page"} & {key for key, _, _ in kept}
    released = await claim_of(store, await enter(store))
    assert {job.attempt for job in released} == {1}


async def test_nothing_is_trusted_that_was_noted_before_the_store_was_started(
    estate: Estate,
) -> None:
    """A heartbeat of long ago: the server, where there is one, has been started since."""
    house = estate.house(VirtualClock(unix_s=LONG_AGO_S))
    store = await house.opened()
    await add(store, "a", "b")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, once=["kind"])
    await store.begin(process_id, [(jobs[0].id, jobs[0].lease)])
    row = await process_row(store, process_id)
    assert row.outlived or not store.marks_begun
    assert await store.rescue(row, [], known=False) == 2
    assert await queue_counts(store) == {JobState.UNCERTAIN: 2}
    await house.close()


async def test_a_store_that_runs_since_the_last_heartbeat_has_not_outlived_it(
    house: House, store: Store
) -> None:
    process_id = await enter(store)
    house.clock.move_to(1000.0)
    assert not (await process_row(store, process_id)).outlived


async def test_a_request_to_cancel_outlives_the_process(store: Store) -> None:
    await add(store, "a", "b")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id)
    await store.cancel(JobFilter(ids=(jobs[0].id,)))
    assert await store.rescue(await process_row(store, process_id), [], known=True) == 2
    assert await queue_counts(store) == {JobState.CANCELLED: 1, JobState.AVAILABLE: 1}


async def test_a_process_that_renewed_meanwhile_is_not_rescued(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, queue=f"batch:{batch_id}")
    seen = await process_row(store, process_id)
    house.clock.move_to(31.0)
    await renew(store, process_id)
    for known in (True, False):
        assert await store.rescue(seen, ended(jobs, Step.LOSE), known=known) is None
    assert await counts(store, batch_id) == {JobState.RUNNING: 2}
    assert await store.finish(ended(jobs)) == 0


async def test_a_rescue_is_done_once(store: Store) -> None:
    batch_id = await fill(store, 2)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, queue=f"batch:{batch_id}")
    seen = await process_row(store, process_id)
    assert await store.rescue(seen, ended(jobs[:1]), known=True) == 1
    assert await store.rescue(seen, ended(jobs, Step.LOSE), known=False) is None
    assert await counts(store, batch_id) == {JobState.COMPLETED: 1, JobState.AVAILABLE: 1}


async def test_of_two_rescuers_one_rescues(house: House) -> None:
    one, other = await house.opened(), await house.opened()
    batch_id = await fill(one, 4)
    process_id = await enter(one)
    await claim_of(one, process_id, queue=f"batch:{batch_id}", once=["kind"])
    seen = await process_row(other, process_id)
    answers = await asyncio.gather(
        one.rescue(seen, [], known=True), other.rescue(seen, [], known=False)
    )
    assert sorted(answers, key=str) == [4, None]
    assert sum((await counts(one, batch_id)).values()) == 4
    assert JobState.RUNNING not in await counts(one, batch_id)


async def test_only_jobs_of_the_process_are_rescued(store: Store) -> None:
    await add(store, "a", "b", "c")
    dead, alive = await enter(store), await enter(store)
    await claim_of(store, dead, 1)
    theirs = await claim_of(store, alive, 1)
    assert await store.rescue(await process_row(store, dead), [], known=False) == 1
    assert await queue_counts(store) == {JobState.AVAILABLE: 2, JobState.RUNNING: 1}
    assert await store.finish(ended(theirs)) == 0
    assert [row.id for row in await store.processes()] == [alive]


async def test_records_of_a_dead_process_that_are_out_of_date_change_nothing(store: Store) -> None:
    """Its journal may tell of claims that ended long ago, and of jobs that others have now."""
    await add(store, "a", "b", "c")
    process_id, heir = await enter(store), await enter(store)
    done, released = await claim_of(store, process_id, 2)
    await store.finish([*ended([done]), *ended([released], Step.RELEASE)])
    await claim_of(store, heir, 1)
    held = await claim_of(store, process_id, 1)
    records = [*ended([done], Step.FAIL), *ended([released], Step.LOSE), *ended(held)]
    assert await store.rescue(await process_row(store, process_id), records, known=True) == 0
    assert await queue_counts(store) == {JobState.COMPLETED: 2, JobState.RUNNING: 1}


async def test_a_rescued_process_claims_and_finishes_nothing_more(store: Store) -> None:
    await add(store, "a", "b")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, 1)
    await store.rescue(await process_row(store, process_id), [], known=True)
    with pytest.raises(ConflictError):
        await claim_of(store, process_id)
    assert await store.finish(ended(jobs)) == 1
    assert await queue_counts(store) == {JobState.AVAILABLE: 2}


async def test_deaths_in_the_records_of_a_rescue_count(store: Store) -> None:
    (job_id,) = await add(store, "a")
    for _ in range(3):
        process_id = await enter(store)
        jobs = await claim_of(store, process_id)
        row = await process_row(store, process_id)
        assert await store.rescue(row, ended(jobs, Step.DIE), known=True) == 0
    (found,) = await store.find(JobFilter(ids=(job_id,)))
    assert (found.state, found.reason, found.deaths) == (JobState.FAILED, "worker died", 3)


# Retirement


async def test_a_process_that_holds_jobs_is_left_to_be_rescued(store: Store) -> None:
    await store.enqueue(new("a"))
    process_id = await enter(store)
    jobs = await claim_of(store, process_id)
    assert not await store.retire(process_id)
    assert [row.id for row in await store.processes()] == [process_id]
    await store.finish(ended(jobs))
    assert await store.retire(process_id)
    assert await store.retire(process_id)
    assert await store.processes() == []
    with pytest.raises(ConflictError):
        await claim_of(store, process_id)
