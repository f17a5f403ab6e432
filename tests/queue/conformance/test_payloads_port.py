"""What every store does when payloads are read and replaced, whatever their jobs do."""

import msgspec
import pytest

from mailrace.queue import JobState, NewJob, Step, Store
from mailrace.queue.jobrows import JobFilter, JobRow
from mailrace.queue.states import FINAL, REVIVABLE
from mailrace.queue.storedpayloads import (
    PAGE_BYTES,
    PayloadChange,
    PlannedJob,
    StoredPayload,
)
from tests.queue.conformance.test_schedules_port import JOB, SLOT_MS, schedule
from tests.queue.houses import (
    House,
    add,
    all_payloads,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    new,
)

OTHER = '{"another":"ä ☃ 漢"}'.encode()


async def job_in_each_state(store: Store) -> dict[JobState, int]:
    process_id = await enter(store)
    made: dict[JobState, int] = {}
    for step in (Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE, Step.RETRY):
        await add(store, step.value, queue=step.value)
        jobs = await claim_of(store, process_id, queue=step.value)
        records = ended(jobs, step, at_ms=await store.now_ms())
        assert await store.finish(records) == 0
        made[records[0].state] = jobs[0].id
    (made[JobState.RUNNING],) = await add(store, "running", queue="running")
    await claim_of(store, process_id, queue="running")
    (made[JobState.SCHEDULED],) = await add(store, "scheduled", delay_ms=5000)
    (made[JobState.AVAILABLE],) = await add(store, "available")
    assert set(made) == set(JobState)
    return made


async def rows(store: Store) -> list[JobRow]:
    return await store.find(JobFilter())


async def payload_of(store: Store, job_id: int) -> bytes:
    detail = await store.detail(job_id)
    assert detail is not None
    return bytes(detail.payload)


async def stored(store: Store, job_id: int) -> StoredPayload:
    (found,) = [one for one in await all_payloads(store) if one.id == job_id]
    return found


# Reading


async def test_the_payload_of_every_job_is_met_once_in_the_order_of_numbers(store: Store) -> None:
    made = await job_in_each_state(store)
    batch_id = await fill(store, 2)
    shown = {row.id: row for row in await rows(store)}
    for limit in (1, 2, 3, 500):
        found = await all_payloads(store, limit=limit)
        assert [one.id for one in found] == sorted(shown)
        for one in found:
            row = shown[one.id]
            assert (one.state, one.kind, one.queue, one.batch_id) == (
                row.state, row.kind, row.queue, row.batch_id,
            )  # fmt: skip
            assert bytes(one.payload) == await payload_of(store, one.id)
    assert {one.state for one in found} == set(made)
    assert [one.batch_id for one in found[-2:]] == [batch_id, batch_id]
    assert await store.payloads(max(shown)) == []


async def test_a_page_of_large_payloads_is_a_short_one(store: Store) -> None:
    large = msgspec.Raw(b'"%b"' % (b"x" * 1_000_000))
    await store.enqueue([NewJob(kind="kind", payload=large) for _ in range(12)])
    page = await store.payloads(0)
    assert 1 <= len(page) <= 6
    assert len(await all_payloads(store)) == 12


async def test_a_page_is_measured_in_bytes_and_not_in_characters(store: Store) -> None:
    large = msgspec.Raw('"{}"'.format("漢" * 500_000).encode())
    await store.enqueue([NewJob(kind="kind", payload=large) for _ in range(6)])
    assert len(large) * 3 > PAGE_BYTES > len(large) * 2
    assert [len(await store.payloads(0, limit=limit)) for limit in (2, 500)] == [2, 3]


async def test_one_payload_that_is_larger_than_a_page_is_met(store: Store) -> None:
    large = msgspec.Raw(b'"%b"' % (b"x" * 9_000_000))
    await store.enqueue([NewJob(kind="kind", payload=large)] * 2)
    assert [len(one.payload) for one in await all_payloads(store)] == [9_000_002] * 2


# Replacing


async def test_only_the_payload_changes_and_not_that_of_a_running_job(store: Store) -> None:
    made = await job_in_each_state(store)
    before, figures = await rows(store), await store.queue_figures()
    old = await payload_of(store, made[JobState.RUNNING])
    changes = [PayloadChange(one.id, one.lease, OTHER) for one in await all_payloads(store)]
    done = await store.replace_payloads(changes)
    assert sorted(done) == sorted(set(made.values()) - {made[JobState.RUNNING]})
    for state, job_id in made.items():
        expected = old if state is JobState.RUNNING else OTHER
        assert await payload_of(store, job_id) == expected, state
    assert await rows(store) == before
    assert await store.queue_figures() == figures
    assert await store.replace_payloads([]) == []


async def test_each_job_gets_the_payload_meant_for_it(store: Store) -> None:
    made = await add(store, *map(str, range(20)))
    changes = [PayloadChange(job_id, 0, b"%d" % job_id) for job_id in reversed(made)]
    assert sorted(await store.replace_payloads(changes)) == made
    assert [bytes(one.payload) for one in await all_payloads(store)] == [
        b"%d" % one for one in made
    ]
    claimed = await claim_of(store, await enter(store), 20)
    assert [(job.id, bytes(job.payload)) for job in claimed] == [(one, b"%d" % one) for one in made]


@pytest.mark.parametrize("last", [Step.COMPLETE, Step.FAIL, Step.RETRY])
async def test_a_job_that_was_claimed_since_keeps_its_payload(store: Store, last: Step) -> None:
    process_id = await enter(store)
    (job_id,) = await add(store, "x")
    read = await stored(store, job_id)
    old = bytes(read.payload)
    change = PayloadChange(job_id, read.lease, OTHER)
    jobs = await claim_of(store, process_id)
    assert await store.replace_payloads([change]) == []
    for step in (Step.RELEASE, last):
        jobs = jobs or await claim_of(store, process_id)
        await store.finish(ended(jobs, step, at_ms=await store.now_ms()))
        jobs = []
        assert await store.replace_payloads([change]) == []
    assert await payload_of(store, job_id) == old
    assert await store.replace_payloads([PayloadChange(job_id + 1, 0, OTHER)]) == []


async def test_a_job_that_ended_or_came_back_unclaimed_gets_its_payload(store: Store) -> None:
    (job_id,) = await add(store, "x")
    lease = (await stored(store, job_id)).lease
    assert await store.cancel(JobFilter(ids=(job_id,))) == 1
    assert await store.replace_payloads([PayloadChange(job_id, lease, OTHER)]) == [job_id]
    lease = (await stored(store, job_id)).lease
    assert await store.revive(JobFilter(ids=(job_id,))) == 1
    again = PayloadChange(job_id, (await stored(store, job_id)).lease, b"7")
    assert await store.replace_payloads([again]) == [job_id]
    (job,) = await claim_of(store, await enter(store))
    assert bytes(job.payload) == b"7"


async def test_what_was_replaced_goes_on_as_it_would_have(store: Store) -> None:
    made = await job_in_each_state(store)
    batch_id = await fill(store, 3)
    sums = await counts(store, batch_id)
    changes = [PayloadChange(one.id, one.lease, OTHER) for one in await all_payloads(store)]
    await store.replace_payloads(changes)
    revived = [made[state] for state in REVIVABLE]
    assert await store.revive(JobFilter(ids=tuple(revived))) == len(revived)
    process_id = await enter(store)
    for state in REVIVABLE:
        row = next(row for row in await rows(store) if row.id == made[state])
        (job,) = await claim_of(store, process_id, queue=row.queue)
        assert bytes(job.payload) == OTHER
    jobs = await claim_of(store, process_id, queue=f"batch:{batch_id}")
    assert await store.finish(ended(jobs, at_ms=await store.now_ms())) == 0
    assert await counts(store, batch_id) == {JobState.COMPLETED: sum(sums.values())}
    assert all(row.state in FINAL for row in await rows(store) if row.batch_id == batch_id)


# What is planned


async def planned(store: Store) -> dict[str, PlannedJob]:
    return {f"{one.source} {one.name}": one for one in await store.planned_jobs()}


def with_payload(one: PlannedJob, payload: bytes) -> bytes:
    job = msgspec.json.decode(one.job, type=NewJob)
    return msgspec.json.encode(msgspec.structs.replace(job, payload=msgspec.Raw(payload)))


async def test_what_schedules_and_open_batches_will_make_is_found(store: Store) -> None:
    assert await planned(store) == {}
    await store.put_schedule(schedule("ä'%"))
    (then,) = new("x", queue="q")
    batch = await store.open_batch("spring", "batch", b"{}", completion=then)
    await store.open_batch("without", "batch", b"{}")
    found = await planned(store)
    assert set(found) == {"schedule ä'%", "batch spring"}
    assert msgspec.json.decode(found["schedule ä'%"].job, type=NewJob) == JOB
    assert msgspec.json.decode(found["batch spring"].job, type=NewJob) == then
    await store.seal_batch(batch.id)
    assert set(await planned(store)) == set(found)
    assert await store.complete_batches() == 1
    assert set(await planned(store)) == {"schedule ä'%"}
    late = found["batch spring"]
    assert not await store.replace_planned(late, with_payload(late, OTHER))


async def test_what_is_made_has_the_payload_that_was_put_in(store: Store) -> None:
    await store.put_schedule(schedule())
    await store.put_schedule(schedule("other"))
    (then,) = new("x", queue="then")
    batch = await store.open_batch("spring", "batch", b"{}", completion=then)
    await store.open_batch("autumn", "batch", b"{}", completion=then)
    found = await planned(store)
    for name in ("schedule daily", "batch spring"):
        assert await store.replace_planned(found[name], with_payload(found[name], OTHER))
    assert await store.fire("daily", SLOT_MS)
    await store.seal_batch(batch.id)
    assert await store.complete_batches() == 1
    process_id = await enter(store)
    for flow in ({"queue": "q", "tenant": "t", "priority": 2}, {"queue": "then"}):
        (job,) = await claim_of(store, process_id, **flow)
        assert bytes(job.payload) == OTHER
    now = await planned(store)
    assert {name: now[name] for name in ("schedule other", "batch autumn")} == {
        name: found[name] for name in ("schedule other", "batch autumn")
    }
    (daily,) = [row for row in await store.schedules() if row.name == "daily"]
    assert daily.last_slot_ms == SLOT_MS


async def test_a_schedule_that_was_given_another_job_meanwhile_keeps_it(
    house: House, store: Store
) -> None:
    await store.put_schedule(schedule())
    (found,) = (await planned(store)).values()
    other = await house.opened()
    await other.put_schedule(schedule(job=msgspec.structs.replace(JOB, tenant="new")))
    assert not await store.replace_planned(found, with_payload(found, OTHER))
    (row,) = await store.schedules()
    assert row.job == msgspec.structs.replace(JOB, tenant="new")
    await other.remove_schedule("daily")
    assert not await store.replace_planned(found, with_payload(found, OTHER))
