"""What every store has to do with jobs; `test_store_processes.py` is the other half."""

import itertools

import msgspec
import pytest

from mailrace.errors import ConflictError
from mailrace.queue import ClaimedJob, JobState, NewJob, Step, Store
from mailrace.queue.jobs import Finished, ProcessRow
from mailrace.queue.states import STEPS, after
from tests.queue.houses import House, counts, ended, fill, new

RELEASED = Finished(0, 0, Step.RELEASE, JobState.AVAILABLE, at_ms=1)
LOST = Finished(0, 0, Step.LOSE, JobState.UNCERTAIN, None, "no reply", "died", 1)


async def row(store: Store, process_id: int) -> ProcessRow:
    return next(process for process in await store.processes() if process.id == process_id)


# Batches and enqueueing


async def test_a_batch_is_made_once(store: Store) -> None:
    first = await store.open_batch("spring", "campaign", b'{"a":1}')
    again = await store.open_batch("spring", "other", b'{"b":2}')
    assert first.created
    assert not again.created
    assert (again.id, again.kind, bytes(again.spec)) == (first.id, "campaign", b'{"a":1}')


async def test_batches_are_listed_the_newest_first(store: Store) -> None:
    for name in ("one", "two", "three"):
        await store.open_batch(name, "kind", b"[]")
    assert [batch.name for batch in await store.batches()] == ["three", "two", "one"]
    assert not any(batch.created for batch in await store.batches())


async def test_a_key_is_taken_once_a_batch(store: Store) -> None:
    batch_id = await fill(store, 0)
    assert await store.enqueue(batch_id, new("a", "b", "a")) == 2
    assert await store.enqueue(batch_id, new("b", "c")) == 1
    assert await store.enqueue(batch_id, new("a", "b", "c")) == 0
    assert await store.enqueue(batch_id, []) == 0
    other_id = await fill(store, 0, "other")
    assert await store.enqueue(other_id, new("a", "b")) == 2
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 3}
    assert await counts(store, other_id) == {JobState.AVAILABLE: 2}


async def test_of_two_payloads_for_a_key_the_first_stays(store: Store) -> None:
    batch_id = await fill(store, 0)
    await store.enqueue(
        batch_id, [NewJob("a", msgspec.Raw(b"[1]")), NewJob("a", msgspec.Raw(b"[2]"))]
    )
    await store.enqueue(batch_id, [NewJob("a", msgspec.Raw(b"[3]"))])
    jobs = await store.claim(await store.register("j", 30), batch_id, 10)
    assert [bytes(job.payload) for job in jobs] == [b"[1]"]


@pytest.mark.parametrize(
    "payload",
    [
        *(
            {},
            [],
            {"a": {"b": [1, None]}},
            ["ä", "\u0000\n\"\\'", "漢字 🐎"],
            "text",
            "",
            "1",
            "null",
        ),
        *(0, -1, 2**53, 1.5, True, False, None, [True, False, None], "true", '{"a":1}'),
    ],
)
async def test_a_payload_comes_back_as_the_same_value(store: Store, payload: object) -> None:
    batch_id = await fill(store, 0)
    await store.enqueue(batch_id, [NewJob("k'\"ä🐎", msgspec.Raw(msgspec.json.encode(payload)))])
    (job,) = await store.claim(await store.register("j", 30), batch_id, 1)
    found = msgspec.json.decode(job.payload)
    assert (found, type(found)) == (payload, type(payload))


# Claiming


async def test_jobs_are_claimed_in_the_order_they_came(store: Store) -> None:
    batch_id = await fill(store, 25)
    process_id = await store.register("j", 30)
    claims = [await store.claim(process_id, batch_id, 10) for _ in range(4)]
    assert [len(claim) for claim in claims] == [10, 10, 5, 0]
    ids = [job.id for claim in claims for job in claim]
    assert ids == sorted(set(ids))
    assert {job.attempt for claim in claims for job in claim} == {1}
    leases = [{job.lease for job in claim} for claim in claims[:3]]
    assert all(one and not one & other for one, other in itertools.pairwise(leases))


async def test_only_jobs_of_the_batch_are_claimed(store: Store) -> None:
    mine, other = await fill(store, 3), await fill(store, 3, "other")
    process_id = await store.register("j", 30)
    assert len(await store.claim(process_id, mine, 10)) == 3
    assert await counts(store, other) == {JobState.AVAILABLE: 3}


async def test_a_process_that_is_not_known_claims_nothing(store: Store) -> None:
    batch_id = await fill(store, 3)
    with pytest.raises(ConflictError):
        await store.claim(17, batch_id, 10)
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 3}


async def test_a_retry_is_claimed_when_it_is_due(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    process_id = await store.register("j", 30)
    first, second = await store.claim(process_id, batch_id, 2)
    now_ms = int(house.clock.unix_s() * 1000)
    await store.finish(ended([first], Step.RETRY, run_at_ms=now_ms + 5000))
    await store.finish(ended([second], Step.RETRY, run_at_ms=now_ms + 9000))
    assert (await store.report(batch_id)).next_due_ms == now_ms + 5000
    house.clock.move_to(4.999)
    assert await store.claim(process_id, batch_id, 10) == []
    assert await counts(store, batch_id) == {JobState.RETRYABLE: 2}
    house.clock.move_to(5.0)
    (again,) = await store.claim(process_id, batch_id, 10)
    assert (again.id, again.attempt) == (first.id, 2)
    assert again.lease > first.lease
    assert (await store.report(batch_id)).next_due_ms == now_ms + 9000


async def test_more_retries_are_due_than_fit_a_claim(house: House, store: Store) -> None:
    batch_id = await fill(store, 10)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 10)
    await store.finish(ended(jobs, Step.RETRY, run_at_ms=0))
    claims = [await store.claim(process_id, batch_id, 4) for _ in range(4)]
    assert [len(claim) for claim in claims] == [4, 4, 2, 0]


# Finishing


@pytest.mark.parametrize("step", [Step.COMPLETE, Step.RETRY, Step.FAIL, Step.LOSE, Step.RELEASE])
async def test_a_step_from_running_is_written(house: House, store: Store, step: Step) -> None:
    batch_id = await fill(store, 3)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 2)
    assert await store.finish(ended(jobs, step, run_at_ms=5 if step is Step.RETRY else None)) == 0
    to = after(JobState.RUNNING, step)
    assert house.states(batch_id) == {
        "k000": to,
        "k001": to,
        "k002": JobState.AVAILABLE,
    }
    assert {state for state in JobState if (await counts(store, batch_id)).get(state)} == {
        to,
        JobState.AVAILABLE,
    }
    kept = [(a.key, a.attempt, a.step) for a in house.attempts(batch_id)]
    assert kept == ([] if step is Step.RELEASE else [("k000", 1, step), ("k001", 1, step)])


def test_every_legal_step_has_its_method() -> None:
    """The steps of this suite are all there are: a new one needs tests of its own."""
    assert set(STEPS) == {
        (JobState.AVAILABLE, Step.CLAIM),
        (JobState.RUNNING, Step.RELEASE),
        (JobState.RUNNING, Step.COMPLETE),
        (JobState.RUNNING, Step.RETRY),
        (JobState.RUNNING, Step.FAIL),
        (JobState.RUNNING, Step.LOSE),
        (JobState.RETRYABLE, Step.STAGE),
        (JobState.UNCERTAIN, Step.RESEND),
    }


async def test_a_release_refunds_the_attempt(store: Store) -> None:
    batch_id = await fill(store, 1)
    process_id = await store.register("j", 30)
    for _ in range(3):
        jobs = await store.claim(process_id, batch_id, 1)
        assert [job.attempt for job in jobs] == [1]
        await store.finish(ended(jobs, Step.RELEASE))


async def test_a_result_is_written_once(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 2)
    assert await store.finish(ended(jobs, Step.FAIL)) == 0
    for step in (Step.COMPLETE, Step.RETRY, Step.RELEASE, Step.LOSE, Step.FAIL):
        assert await store.finish(ended(jobs, step, run_at_ms=1)) == 2
    assert await counts(store, batch_id) == {JobState.FAILED: 2}
    assert [attempt.step for attempt in house.attempts(batch_id)] == ["fail", "fail"]


async def test_of_two_results_in_one_call_the_first_counts(store: Store) -> None:
    batch_id = await fill(store, 1)
    jobs = await store.claim(await store.register("j", 30), batch_id, 1)
    assert await store.finish([*ended(jobs), *ended(jobs, Step.FAIL)]) == 1
    assert await counts(store, batch_id) == {JobState.COMPLETED: 1}


async def test_a_late_result_is_refused_beside_the_right_one(store: Store) -> None:
    """Both in one transaction: the zombie's record of a job and its successor's."""
    batch_id = await fill(store, 1)
    process_id = await store.register("j", 30)
    old = await store.claim(process_id, batch_id, 1)
    await store.finish(ended(old, Step.RELEASE))
    now = await store.claim(process_id, batch_id, 1)
    assert await store.finish([*ended(old, Step.FAIL), *ended(now), *ended(old, Step.LOSE)]) == 2
    assert await counts(store, batch_id) == {JobState.COMPLETED: 1}


async def test_a_zombie_writes_nothing(house: House, store: Store) -> None:
    batch_id = await fill(store, 3)
    zombie, heir = await store.register("z", 30), await store.register("h", 30)
    old = await store.claim(zombie, batch_id, 3)
    await store.rescue(await row(store, zombie), [], rest=RELEASED)
    new_jobs = await store.claim(heir, batch_id, 2)
    before = await store.report(batch_id)
    for step in (Step.COMPLETE, Step.RETRY, Step.FAIL, Step.LOSE, Step.RELEASE):
        assert await store.finish(ended(old, step, run_at_ms=1)) == 3
    assert await store.report(batch_id) == before
    assert house.attempts(batch_id) == []
    assert await store.finish(ended(new_jobs)) == 0
    with pytest.raises(ConflictError):
        await store.claim(zombie, batch_id, 1)


async def test_unknown_jobs_are_refused(store: Store) -> None:
    await fill(store, 1)
    stranger = ClaimedJob(99, 7, 1, msgspec.Raw(b"[]"))
    assert await store.finish(ended([stranger])) == 1
    assert await store.finish([]) == 0


async def test_jobs_of_several_batches_finish_together(store: Store) -> None:
    first, second = await fill(store, 2), await fill(store, 3, "second")
    process_id = await store.register("j", 30)
    jobs = [*await store.claim(process_id, first, 9), *await store.claim(process_id, second, 9)]
    assert await store.finish(ended(jobs)) == 0
    assert await counts(store, first) == {JobState.COMPLETED: 2}
    assert await counts(store, second) == {JobState.COMPLETED: 3}


async def test_uncertain_jobs_are_sent_again_on_request(store: Store) -> None:
    batch_id, other_id = await fill(store, 4), await fill(store, 2, "other")
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 4)
    await store.finish(ended(await store.claim(process_id, other_id, 2), Step.LOSE))
    await store.finish([*ended(jobs[:2], Step.LOSE), *ended(jobs[2:3], Step.FAIL)])
    assert await store.resend(batch_id) == 2
    assert await store.resend(batch_id) == 0
    assert await counts(store, batch_id) == {
        JobState.AVAILABLE: 2,
        JobState.FAILED: 1,
        JobState.RUNNING: 1,
    }
    assert await counts(store, other_id) == {JobState.UNCERTAIN: 2}
    again = await store.claim(process_id, batch_id, 9)
    assert [(job.id, job.attempt) for job in again] == [(job.id, 1) for job in jobs[:2]]
    assert await store.finish(ended(jobs[:2])) == 2  # the first answer comes after all: too late
