"""What every store writes when attempts end: the next state, what is counted, what is refused."""

from dataclasses import dataclass

import msgspec
import pytest

from mailrace.errors import ConflictError
from mailrace.queue import ClaimedJob, JobState, Step, Store
from mailrace.queue.jobrows import JobFilter, JobRow
from mailrace.queue.states import STEPS, after
from tests.queue.houses import (
    AttemptRow,
    House,
    add,
    claim_all,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    now_ms,
    numbered,
    process_row,
    queue_counts,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class After:
    """What a step from running leaves of a job in its first attempt."""

    attempt: int = 1
    deaths: int = 0
    snoozes: int = 0
    row: bool = True


AFTER = {
    Step.RELEASE: After(attempt=0, row=False),
    Step.COMPLETE: After(row=False),
    Step.RETRY: After(),
    Step.SNOOZE: After(attempt=0, snoozes=1, row=False),
    Step.FAIL: After(),
    Step.LOSE: After(),
    Step.DIE: After(attempt=0, deaths=1),
    Step.CANCEL: After(),
    Step.EXPIRE: After(),
}
CALLED_OFF = {Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.DIE}
"""Steps in place of which a job is cancelled that somebody wants cancelled."""


async def job_row(store: Store, job_id: int) -> JobRow:
    detail = await store.detail(job_id)
    assert detail is not None
    return detail.row


def test_every_step_from_running_is_in_this_suite() -> None:
    assert set(AFTER) == {step for state, step in STEPS if state is JobState.RUNNING}


@pytest.mark.parametrize("step", AFTER, ids=str)
async def test_a_step_from_running_is_written(house: House, store: Store, step: Step) -> None:
    batch_id = await fill(store, 3)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    house.clock.move_to(1.0)
    jobs = await claim_of(store, process_id, 2, queue=queue)
    records = ended(jobs, step, at_ms=now_ms(house), reason="550", detail="no", category="provider")
    assert await store.finish(records) == 0
    to = after(JobState.RUNNING, step)
    assert house.states(batch_id) == {"k000": to, "k001": to, "k002": JobState.AVAILABLE}
    expected = {to: 2, JobState.AVAILABLE: 1} if to != "available" else {JobState.AVAILABLE: 3}
    assert await counts(store, batch_id) == await queue_counts(store, queue) == expected
    for place, job in enumerate(jobs):
        row = await job_row(store, job.id)
        assert (row.attempt, row.deaths, row.snoozes) == (
            AFTER[step].attempt, AFTER[step].deaths, AFTER[step].snoozes,
        )  # fmt: skip
        assert row.state is to
        final = step in {Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE}
        assert row.ended_ms == (now_ms(house) if final else None)
        if final:
            assert (row.reason, row.detail) == ("550", "no")
        kept = [a for a in house.attempts(batch_id) if a.key == f"k00{place}"]
        assert kept == ([AttemptRow(f"k00{place}", job.lease, 1, step)] if AFTER[step].row else [])


@pytest.mark.parametrize("step", AFTER, ids=str)
async def test_what_a_step_leaves_behind_is_what_the_next_claim_finds(
    store: Store, step: Step
) -> None:
    await add(store, "a")
    process_id = await enter(store)
    first = await claim_of(store, process_id)
    await store.finish(ended(first, step))
    again = await claim_of(store, process_id)
    if after(JobState.RUNNING, step) in {"available", "scheduled", "retryable"}:
        assert [(job.attempt, job.deaths) for job in again] == [
            (AFTER[step].attempt + 1, AFTER[step].deaths)
        ]
        assert again[0].lease > first[0].lease
        assert again[0].payload == first[0].payload
    else:
        assert again == []


async def test_attempts_deaths_and_snoozes_add_up(house: House, store: Store) -> None:
    (job_id,) = await add(store, "a")
    process_id = await enter(store)
    steps = (
        Step.RETRY, Step.SNOOZE, Step.DIE, Step.RELEASE, Step.RETRY, Step.SNOOZE, Step.DIE,
        Step.FAIL,
    )  # fmt: skip
    found = []
    for step in steps:
        jobs = await claim_of(store, process_id)
        found.append((jobs[0].attempt, jobs[0].deaths))
        await store.finish(ended(jobs, step, reason=step.value))
    assert found == [(1, 0), (2, 0), (2, 0), (2, 1), (2, 1), (3, 1), (3, 1), (3, 2)]
    row = await job_row(store, job_id)
    assert (row.attempt, row.deaths, row.snoozes, row.reason) == (3, 2, 2, "fail")
    detail = await store.detail(job_id)
    assert detail is not None
    assert [(a.step, a.attempt, a.reason) for a in detail.attempts] == [
        ("retry", 1, "retry"), ("die", 2, "die"), ("retry", 2, "retry"), ("die", 3, "die"),
        ("fail", 3, "fail"),
    ]  # fmt: skip


async def test_a_job_with_which_three_processes_died_is_not_run_again(
    house: House, store: Store
) -> None:
    (job_id,) = await add(store, "a")
    for deaths in range(3):
        process_id = await enter(store)
        (job,) = await claim_of(store, process_id)
        assert (job.deaths, job.attempt) == (deaths, 1)
        assert await store.finish(ended([job], Step.DIE, reason="killed")) == 0
    assert house.everything() == {job_id: JobState.FAILED}
    assert await queue_counts(store) == {JobState.FAILED: 1}
    assert await claim_of(store, await enter(store)) == []
    row = await job_row(store, job_id)
    assert (row.deaths, row.reason, row.category) == (3, "worker died", "system")
    assert row.ended_ms == now_ms(house)


async def test_in_one_call_each_job_dies_its_own_death(store: Store) -> None:
    process_id = await enter(store)
    (old,) = await add(store, "old")
    for _ in range(2):
        await store.finish(ended(await claim_of(store, process_id), Step.DIE))
    (young,) = await add(store, "young")
    jobs = await claim_of(store, process_id)
    assert await store.finish(ended(jobs, Step.DIE)) == 0
    assert (await job_row(store, old)).state is JobState.FAILED
    assert (await job_row(store, young)).state is JobState.AVAILABLE
    assert await queue_counts(store) == {JobState.FAILED: 1, JobState.AVAILABLE: 1}


async def test_all_steps_in_one_call_are_written(house: House, store: Store) -> None:
    batch_id = await fill(store, 9)
    jobs = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    records = [ended([job], step)[0] for job, step in zip(jobs, AFTER, strict=True)]
    assert await store.finish(records) == 0
    expected = {f"k00{place}": after(JobState.RUNNING, step) for place, step in enumerate(AFTER)}
    assert house.states(batch_id) == expected
    states = list(expected.values())
    assert await counts(store, batch_id) == {state: states.count(state) for state in states}


@pytest.mark.parametrize(
    "result", [{"sent": ["ä", None, 1.5]}, [], "", 0, False, {"a": "\u0000"}], ids=repr
)
async def test_a_result_comes_back(store: Store, result: object) -> None:
    await add(store, "a")
    jobs = await claim_of(store, await enter(store))
    raw = msgspec.Raw(msgspec.json.encode(result))
    assert await store.finish(ended(jobs, result=raw)) == 0
    detail = await store.detail(jobs[0].id)
    assert detail is not None
    assert detail.result is not None
    found = msgspec.json.decode(detail.result)
    assert (found, type(found)) == (result, type(result))


async def test_a_job_whose_handler_returned_nothing_has_no_result(store: Store) -> None:
    await add(store, "a")
    jobs = await claim_of(store, await enter(store))
    await store.finish(ended(jobs))
    detail = await store.detail(jobs[0].id)
    assert detail is not None
    assert detail.result is None


async def test_the_words_of_the_far_side_come_back(store: Store) -> None:
    words = "5.1.1 'quoted' \"double\" back\\slash %s ; -- \n\t漢字🐎 {}[]"
    await add(store, "a")
    jobs = await claim_of(store, await enter(store))
    await store.finish(ended(jobs, Step.FAIL, reason=words, detail=words * 50, category="data"))
    row = await job_row(store, jobs[0].id)
    assert (row.reason, row.detail, row.category) == (words, words * 50, "data")


async def test_words_with_a_null_in_them_do_not_stop_the_others(house: House, store: Store) -> None:
    """What the far side says is not ours to choose, and not every store can keep U+0000."""
    batch_id = await fill(store, 2)
    jobs = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    records = [*ended(jobs[:1], Step.FAIL, reason="a\0b", detail="\0"), *ended(jobs[1:])]
    assert await store.finish(records) == 0
    assert house.states(batch_id) == {"k000": JobState.FAILED, "k001": JobState.COMPLETED}


# What is refused


async def test_a_result_is_written_once(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    jobs = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    assert await store.finish(ended(jobs, Step.FAIL)) == 0
    for step in AFTER:
        assert await store.finish(ended(jobs, step)) == 2
    assert await counts(store, batch_id) == {JobState.FAILED: 2}
    assert [attempt.step for attempt in house.attempts(batch_id)] == ["fail", "fail"]


@pytest.mark.parametrize("first", AFTER, ids=str)
async def test_of_two_results_in_one_call_the_first_counts(
    house: House, store: Store, first: Step
) -> None:
    batch_id = await fill(store, 1)
    jobs = await claim_of(store, await enter(store), queue=f"batch:{batch_id}")
    for second in AFTER:
        if second is not first:
            break
    assert await store.finish([*ended(jobs, first), *ended(jobs, second)]) == 1
    assert house.states(batch_id) == {"k000": after(JobState.RUNNING, first)}
    assert await counts(store, batch_id) == {after(JobState.RUNNING, first): 1}


@pytest.mark.parametrize("step", [Step.RELEASE, Step.DIE, Step.RETRY, Step.SNOOZE], ids=str)
async def test_the_result_of_an_earlier_claim_is_refused(store: Store, step: Step) -> None:
    """Also beside the right one, in one transaction: the zombie's record and its successor's."""
    batch_id = await fill(store, 1)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    old = await claim_of(store, process_id, queue=queue)
    await store.finish(ended(old, step))
    now = await claim_of(store, process_id, queue=queue)
    assert await store.finish(ended(old)) == 1
    assert await store.finish([*ended(old, Step.FAIL), *ended(now), *ended(old, Step.LOSE)]) == 2
    assert await counts(store, batch_id) == {JobState.COMPLETED: 1}


async def test_the_leases_of_two_jobs_are_not_mixed_up(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    (one,) = await claim_of(store, process_id, 1, queue=queue)
    (two,) = await claim_of(store, process_id, 1, queue=queue)
    crossed = [
        msgspec.structs.replace(ended([one])[0], lease=two.lease),
        msgspec.structs.replace(ended([two])[0], lease=one.lease),
    ]
    assert await store.finish(crossed) == 2
    assert set(house.states(batch_id).values()) == {JobState.RUNNING}


async def test_a_zombie_writes_nothing(house: House, store: Store) -> None:
    batch_id = await fill(store, 3)
    queue = f"batch:{batch_id}"
    zombie, heir = await enter(store), await enter(store)
    old = await claim_of(store, zombie, 3, queue=queue)
    await store.rescue(await process_row(store, zombie), [], known=True)
    heirs = await claim_of(store, heir, 2, queue=queue)
    before = await store.report(batch_id)
    for step in AFTER:
        assert await store.finish(ended(old, step)) == 3
    assert await store.report(batch_id) == before
    assert house.attempts(batch_id) == []
    assert await store.finish(ended(heirs)) == 0
    with pytest.raises(ConflictError):
        await claim_of(store, zombie, queue=queue)


async def test_unknown_jobs_are_refused(store: Store) -> None:
    await add(store, "a")
    (job,) = await claim_of(store, await enter(store))
    stranger = msgspec.structs.replace(job, id=job.id + 99)
    assert await store.finish([*ended([stranger]), *ended([job])]) == 1
    assert await store.finish([]) == 0
    assert await queue_counts(store) == {JobState.COMPLETED: 1}


async def test_jobs_of_several_batches_and_queues_finish_together(store: Store) -> None:
    first, second = await fill(store, 2), await fill(store, 3, "second")
    await add(store, *numbered("k", 4))
    process_id = await enter(store)
    jobs: list[ClaimedJob] = []
    for queue in (f"batch:{first}", f"batch:{second}", "default"):
        jobs += await claim_all(store, process_id, queue, 9)
    assert await store.finish(ended(jobs)) == 0
    assert await counts(store, first) == {JobState.COMPLETED: 2}
    assert await counts(store, second) == {JobState.COMPLETED: 3}
    assert await queue_counts(store) == {JobState.COMPLETED: 4}


# Requests to cancel


@pytest.mark.parametrize("step", AFTER, ids=str)
async def test_a_step_of_a_job_that_somebody_wants_cancelled(
    house: House, store: Store, step: Step
) -> None:
    batch_id = await fill(store, 2)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    wanted, other = await claim_of(store, process_id, queue=queue)
    assert await store.cancel(JobFilter(ids=(wanted.id,))) == 1
    assert set(house.states(batch_id).values()) == {JobState.RUNNING}
    assert await store.cancels(process_id) == [wanted.id]
    assert await store.finish(ended([wanted, other], step, delay_ms=60_000)) == 0
    to = JobState.CANCELLED if step in CALLED_OFF else after(JobState.RUNNING, step)
    untouched = after(JobState.RUNNING, step)
    assert house.states(batch_id) == {"k000": to, "k001": untouched}
    assert await counts(store, batch_id) == ({to: 2} if to is untouched else {to: 1, untouched: 1})
    assert await store.cancels(process_id) == []


async def test_the_last_death_of_a_job_that_somebody_wants_cancelled_cancels_it(
    house: House, store: Store
) -> None:
    (job_id,) = await add(store, "a")
    process_id = await enter(store)
    for _ in range(2):
        await store.finish(ended(await claim_of(store, process_id), Step.DIE))
    jobs = await claim_of(store, process_id)
    await store.cancel(JobFilter(ids=(job_id,)))
    await store.finish(ended(jobs, Step.DIE))
    assert house.everything() == {job_id: JobState.CANCELLED}


async def test_a_request_to_cancel_is_told_to_the_process_that_runs_the_job(
    house: House, store: Store
) -> None:
    other = await house.opened()
    await add(store, "a", "b", "c", "d")
    one_id, other_id = await enter(store), await enter(other)
    mine, theirs = await claim_of(store, one_id, 2), await claim_of(other, other_id, 1)
    assert await store.cancel(JobFilter()) == 4
    assert sorted(await other.cancels(one_id)) == [job.id for job in mine]
    assert await store.cancels(other_id) == [job.id for job in theirs]
    assert await store.cancels(4711) == []
    assert await queue_counts(store) == {JobState.RUNNING: 3, JobState.CANCELLED: 1}


async def test_a_request_to_cancel_ends_with_the_run_it_was_for(house: House, store: Store) -> None:
    """A job that is made available again is not cancelled by an old request."""
    (job_id,) = await add(store, "a")
    process_id = await enter(store)
    jobs = await claim_of(store, process_id)
    await store.cancel(JobFilter(ids=(job_id,)))
    await store.finish(ended(jobs, Step.FAIL))
    assert await store.revive(JobFilter(ids=(job_id,))) == 1
    jobs = await claim_of(store, process_id)
    assert await store.cancels(process_id) == []
    await store.finish(ended(jobs, Step.RETRY))
    assert house.everything() == {job_id: JobState.RETRYABLE}
