"""What every store does with counted sets of jobs."""

import asyncio

import msgspec
import pytest

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue import JobState, NewJob, Step, Store
from mailrace.queue.jobrows import JobFilter
from tests.queue.houses import (
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

DONE = NewJob(kind="done", payload=msgspec.Raw(b'{"to":"done"}'), queue="after")
# As a newer version might write them, or somebody by hand.
UNREADABLE = {
    "lane": msgspec.structs.replace(DONE, lane="express"),
    "kind": msgspec.structs.replace(DONE, kind=5),
}


async def opened(store: Store, jobs: int, name: str = "batch") -> int:
    """A batch of so many jobs with a completion job."""
    batch = await store.open_batch(name, "kind", b"{}", completion=DONE)
    await store.enqueue(new(*(f"k{n:03}" for n in range(jobs)), batch_id=batch.id))
    return batch.id


async def completions(store: Store) -> int:
    """How many completion jobs there are once somebody has looked."""
    await store.complete_batches()
    return len(await store.find(JobFilter(kind="done")))


async def test_a_batch_is_made_once(house: House, store: Store) -> None:
    first = await store.open_batch("spring", "campaign", b'{"a":1}')
    again = await (await house.opened()).open_batch("spring", "other", b'{"b":2}')
    assert first.created
    assert not again.created
    assert (again.id, again.kind, again.name) == (first.id, "campaign", "spring")
    assert msgspec.json.decode(again.spec) == {"a": 1}
    assert not first.sealed
    assert not first.completed


async def test_batches_are_listed_the_newest_first(store: Store) -> None:
    for name in ("one", "two", "three"):
        await store.open_batch(name, "kind", b"[]")
    batches = await store.batches()
    assert [batch.name for batch in batches] == ["three", "two", "one"]
    assert not any(batch.created or batch.sealed or batch.completed for batch in batches)


async def test_a_batch_tells_that_it_is_sealed_and_that_it_is_completed(
    house: House, store: Store
) -> None:
    batch_id = await opened(store, 0)
    report = await store.report(batch_id)
    assert (report.sealed, report.completed_ms) == (False, None)
    assert (report.name, report.kind, report.created_ms) == ("batch", "kind", now_ms(house))
    house.clock.move_to(5.0)
    await store.seal_batch(batch_id)
    assert await completions(store) == 1
    report = await store.report(batch_id)
    assert (report.sealed, report.completed_ms) == (True, now_ms(house))
    (batch,) = await store.batches()
    assert batch.sealed
    assert batch.completed


async def test_the_numbers_add_up_at_every_step(house: House, store: Store) -> None:
    batch_id = await fill(store, 24)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    for step in (
        Step.COMPLETE, Step.FAIL, Step.RETRY, Step.LOSE, Step.RELEASE, Step.SNOOZE, Step.DIE,
        Step.CANCEL, Step.EXPIRE,
    ):  # fmt: skip
        jobs = await claim_of(store, process_id, 3, queue=queue)
        assert (await counts(store, batch_id))[JobState.RUNNING] == 3
        await store.finish(ended(jobs, step, delay_ms=86_400_000))
        assert (await store.report(batch_id)).accepted == 24
    await claim_of(store, process_id, 2, queue=queue)
    report = await store.report(batch_id)
    assert report.counts == {
        JobState.SCHEDULED: 3, JobState.AVAILABLE: 1, JobState.RUNNING: 2, JobState.RETRYABLE: 3,
        JobState.COMPLETED: 3, JobState.FAILED: 3, JobState.CANCELLED: 3, JobState.EXPIRED: 3,
        JobState.UNCERTAIN: 3,
    }  # fmt: skip
    due_ms = now_ms(house) + 86_400_000
    assert (report.accepted, report.final, report.next_due_ms) == (24, 15, due_ms)
    await store.tidy()
    assert await store.report(batch_id) == report


async def test_numbers_of_jobs_without_a_batch_are_nobodys(store: Store) -> None:
    batch_id = await fill(store, 1)
    await add(store, "a", "b", queue=f"batch:{batch_id}")
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 1}
    assert await queue_counts(store, f"batch:{batch_id}") == {JobState.AVAILABLE: 3}


async def test_a_batch_may_have_jobs_in_several_queues(store: Store) -> None:
    batch_id = await fill(store, 2)
    await add(store, "x", batch_id=batch_id, queue="elsewhere")
    jobs = await claim_of(store, await enter(store), queue="elsewhere")
    await store.finish(ended(jobs))
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 2, JobState.COMPLETED: 1}


async def test_a_batch_without_attempts_has_no_times(store: Store) -> None:
    report = await store.report(await fill(store, 0))
    assert (report.first_ms, report.last_ms, report.rate, report.accepted) == (None, None, 0.0, 0)
    assert report.next_due_ms is None


async def test_only_jobs_that_are_not_due_yet_say_when_the_next_one_is(
    house: House, store: Store
) -> None:
    batch_id = await fill(store, 1)
    assert (await store.report(batch_id)).next_due_ms is None
    await add(store, "x", batch_id=batch_id, delay_ms=4000)
    await add(store, "y", batch_id=batch_id, delay_ms=9000)
    assert (await store.report(batch_id)).next_due_ms == now_ms(house) + 4000
    house.clock.move_to(5.0)
    assert (await store.report(batch_id)).next_due_ms == now_ms(house) + 4000
    house.clock.move_to(10.0)
    assert (await store.report(batch_id)).next_due_ms is None


async def test_the_rate_is_of_the_last_minute(house: House, store: Store) -> None:
    batch_id = await fill(store, 900)
    process_id = await enter(store)
    start_ms = now_ms(house)
    for second in range(0, 300, 2):
        house.clock.move_to(second)
        jobs = await claim_of(
            store, process_id, 2 if second < 200 else 14, queue=f"batch:{batch_id}"
        )
        await store.finish(ended(jobs, at_ms=now_ms(house)))
    for _ in range(2):
        report = await store.report(batch_id)
        assert report.first_ms is not None
        assert report.last_ms is not None
        # Kept by slices of ten seconds at the coarsest.
        assert 0 <= report.first_ms - start_ms <= 10_000
        assert abs(report.last_ms - (start_ms + 298_000)) <= 10_000
        assert 5.5 <= report.rate <= 8.5
        await store.tidy()


async def test_a_release_is_no_attempt(store: Store) -> None:
    batch_id = await fill(store, 1)
    jobs = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    await store.finish(ended(jobs, Step.RELEASE))
    report = await store.report(batch_id)
    assert (report.first_ms, report.rate) == (None, 0.0)


async def test_reasons_are_grouped_the_most_frequent_first(store: Store) -> None:
    batch_id = await fill(store, 200)
    other_id = await fill(store, 3, "other")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, 200, queue=f"batch:{batch_id}")
    others = await claim_of(store, process_id, 3, queue=f"batch:{other_id}")
    await store.finish(ended(others, Step.FAIL, reason="elsewhere"))
    await store.finish(ended(jobs[:100], reason="250"))
    await store.finish(ended(jobs[100:105], Step.FAIL, reason="550", detail="no such user"))
    await store.finish(ended(jobs[105:107], Step.LOSE, reason="no reply", detail="gone"))
    await store.finish(ended(jobs[107:110], Step.RETRY, reason="550", detail="later", delay_ms=9))
    found = [(r.state, r.reason, r.detail, r.jobs) for r in await store.reasons(batch_id)]
    assert found == [
        (JobState.FAILED, "550", "no such user", 5),
        (JobState.RETRYABLE, "550", "later", 3),
        (JobState.UNCERTAIN, "no reply", "gone", 2),
    ]
    for number, job in enumerate(jobs[110:140]):
        await store.finish(ended([job], Step.FAIL, reason=f"code {number}"))
    assert len(await store.reasons(batch_id)) == 20


async def test_a_job_counts_under_its_last_reason(store: Store) -> None:
    batch_id = await fill(store, 1)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    for reason in ("450", "451"):
        jobs = await claim_of(store, process_id, queue=queue)
        await store.finish(ended(jobs, Step.RETRY, reason=reason))
        assert [(r.reason, r.jobs) for r in await store.reasons(batch_id)] == [(reason, 1)]
    jobs = await claim_of(store, process_id, queue=queue)
    assert await store.reasons(batch_id) == []
    await store.finish(ended(jobs, Step.FAIL, reason="550"))
    assert [(r.reason, r.jobs) for r in await store.reasons(batch_id)] == [("550", 1)]


# The completion job


async def test_a_completion_job_is_made_once_when_all_jobs_are_final(
    house: House, store: Store
) -> None:
    batch_id = await opened(store, 2)
    await store.seal_batch(batch_id)
    process_id = await enter(store)
    first, second = await claim_of(store, process_id, queue=f"batch:{batch_id}")
    await store.finish(ended([first]))
    assert await completions(store) == 0
    await store.finish(ended([second]))
    for _ in range(3):
        assert await completions(store) == 1
        await store.tidy()
    assert await store.complete_batches() == 0
    (job,) = await claim_of(store, process_id, queue="after")
    assert (job.kind, msgspec.json.decode(job.payload)) == ("done", {"to": "done"})


@pytest.mark.parametrize("field", UNREADABLE)
async def test_a_completion_job_that_cannot_be_read_is_named_and_holds_up_no_other(
    store: Store, field: str
) -> None:
    for name, job in (("first", DONE), ("bad", UNREADABLE[field]), ("last", DONE)):
        batch = await store.open_batch(name, "kind", b"{}", completion=job)
        await store.seal_batch(batch.id)
    for _ in range(2):
        with pytest.raises(MisuseError, match=f"of the batch 'bad' cannot be read: .*{field}"):
            await store.complete_batches()
        completed = {batch.name for batch in await store.batches() if batch.completed}
        assert completed == {"first", "last"}
        assert await queue_counts(store, "after") == {JobState.AVAILABLE: 2}
        assert len(await store.find(JobFilter())) == 2


async def test_a_completion_job_that_cannot_be_read_shows_beside_one_that_has_to_wait(
    store: Store,
) -> None:
    sealed = await store.open_batch("sealed", "kind", b"{}")
    await store.seal_batch(sealed.id)
    refused = msgspec.structs.replace(DONE, batch_id=sealed.id)
    out_of_range = msgspec.structs.replace(DONE, priority=99)
    for name, job in (("waits", refused), ("bad", UNREADABLE["kind"]), ("wrong", out_of_range)):
        batch = await store.open_batch(name, "kind", b"{}", completion=job)
        await store.seal_batch(batch.id)
    good = await store.open_batch("good", "kind", b"{}", completion=DONE)
    await store.seal_batch(good.id)
    with pytest.raises(MisuseError, match="'bad' cannot be read"):
        await store.complete_batches()
    completed = {batch.name for batch in await store.batches() if batch.completed}
    assert completed == {"sealed", "good"}
    assert await queue_counts(store, "after") == {JobState.AVAILABLE: 1}


async def test_an_empty_batch_is_completed_when_it_is_sealed(store: Store) -> None:
    batch_id = await opened(store, 0)
    assert await completions(store) == 0
    await store.seal_batch(batch_id)
    assert await completions(store) == 1


async def test_a_batch_that_is_final_is_completed_when_it_is_sealed(store: Store) -> None:
    batch_id = await opened(store, 1)
    await store.finish(ended(await claim_of(store, await enter(store), queue=f"batch:{batch_id}")))
    assert await completions(store) == 0
    await store.seal_batch(batch_id)
    assert await completions(store) == 1
    await store.seal_batch(batch_id)
    assert await completions(store) == 1


@pytest.mark.parametrize("step", [Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE], ids=str)
async def test_jobs_that_did_not_complete_are_final_too(store: Store, step: Step) -> None:
    batch_id = await opened(store, 2)
    await store.seal_batch(batch_id)
    one, other = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    await store.finish(ended([one], step))
    await store.finish(ended([other]))
    assert await completions(store) == 1


@pytest.mark.parametrize("step", [Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.DIE], ids=str)
async def test_jobs_that_wait_again_are_not_final(store: Store, step: Step) -> None:
    batch_id = await opened(store, 1)
    await store.seal_batch(batch_id)
    process_id = await enter(store)
    await store.finish(ended(await claim_of(store, process_id, queue=f"batch:{batch_id}"), step))
    assert await completions(store) == 0
    await store.finish(ended(await claim_of(store, process_id, queue=f"batch:{batch_id}")))
    assert await completions(store) == 1


async def test_a_batch_completes_by_a_cancellation_an_expiry_and_a_rescue(
    house: House, store: Store
) -> None:
    batch = await store.open_batch("batch", "kind", b"{}", completion=DONE)
    fields = {"batch_id": batch.id, "queue": "q"}
    (cancelled,) = await add(store, "cancelled", **fields, tenant="later")
    await add(store, "expiring", **fields, tenant="later", expires_in_ms=1000)
    await add(store, "running", **fields)
    await store.seal_batch(batch.id)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, queue="q")
    await store.cancel(JobFilter(ids=(cancelled,)))
    assert await completions(store) == 0
    house.clock.move_to(2.0)
    assert await store.expire() == 1
    assert await completions(store) == 0
    row = await process_row(store, process_id)
    await store.rescue(row, ended(jobs, Step.LOSE), known=True)
    assert await completions(store) == 1


async def test_a_batch_that_was_opened_again_is_not_completed_twice(store: Store) -> None:
    batch_id = await opened(store, 1)
    await store.seal_batch(batch_id)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, queue=f"batch:{batch_id}")
    await store.finish(ended(jobs, Step.LOSE))
    assert await completions(store) == 1
    assert await store.resend(batch_id) == 1
    await store.tidy()
    assert await completions(store) == 1
    await store.finish(ended(await claim_of(store, process_id, queue=f"batch:{batch_id}")))
    assert await completions(store) == 1


async def test_a_batch_without_a_completion_job_completes_all_the_same(store: Store) -> None:
    batch_id = await fill(store, 0)
    await store.seal_batch(batch_id)
    await store.complete_batches()
    assert (await store.batches())[0].completed
    assert await store.find(JobFilter()) == []


async def test_each_batch_completes_by_itself(store: Store) -> None:
    first, second = await opened(store, 1, "first"), await opened(store, 1, "second")
    await store.seal_batch(first)
    await store.seal_batch(second)
    process_id = await enter(store)
    await store.finish(ended(await claim_of(store, process_id, queue=f"batch:{second}")))
    assert await completions(store) == 1
    assert {batch.name for batch in await store.batches() if batch.completed} == {"second"}
    await store.finish(ended(await claim_of(store, process_id, queue=f"batch:{first}")))
    assert await completions(store) == 2


async def test_two_stores_that_finish_the_last_jobs_at_once_complete_a_batch_once(
    house: House, store: Store
) -> None:
    other = await house.opened()
    one_id, other_id = await enter(store), await enter(other)

    async def finish(mine: Store, process_id: int, batch_id: int) -> None:
        jobs = await claim_of(mine, process_id, 1, queue=f"batch:{batch_id}")
        while not jobs:  # the other one held both rows for a moment
            jobs = await claim_of(mine, process_id, 1, queue=f"batch:{batch_id}")
        assert await mine.finish(ended(jobs)) == 0
        await mine.complete_batches()

    for number in range(8):
        batch_id = await opened(store, 2, f"batch {number}")
        await store.seal_batch(batch_id)
        await asyncio.gather(finish(store, one_id, batch_id), finish(other, other_id, batch_id))
        assert len(await store.find(JobFilter(kind="done"))) == number + 1


async def test_resend_revives_the_uncertain_jobs_of_the_batch_and_no_others(store: Store) -> None:
    batch_id, other_id = await fill(store, 4), await fill(store, 2, "other")
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, 4, queue=queue)
    others = await claim_of(store, process_id, 2, queue=f"batch:{other_id}")
    await store.finish(ended(others, Step.LOSE))
    await store.finish([*ended(jobs[:2], Step.LOSE), *ended(jobs[2:3], Step.FAIL)])
    assert await store.resend(batch_id) == 2
    assert await store.resend(batch_id) == 0
    assert await counts(store, batch_id) == {
        JobState.AVAILABLE: 2, JobState.FAILED: 1, JobState.RUNNING: 1,
    }  # fmt: skip
    assert await counts(store, other_id) == {JobState.UNCERTAIN: 2}
    again = await claim_of(store, process_id, queue=queue)
    assert [(job.id, job.attempt) for job in again] == [(job.id, 1) for job in jobs[:2]]
    assert await store.finish(ended(jobs[:2])) == 2  # the first answer comes after all: too late


async def test_a_report_of_a_batch_that_nobody_opened_is_a_conflict(store: Store) -> None:
    with pytest.raises(ConflictError):
        await store.report(17)
