"""What every store does where only so many jobs of a queue, or with a key, may run at once."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from mailrace.queue import ClaimedJob, JobState, Step, Store
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.queuerules import QueueRules
from tests.queue.houses import (
    House,
    add,
    claim_of,
    ended,
    enter,
    new,
    numbered,
    process_row,
    queue_counts,
)  # fmt: skip

ALL_STEPS = (
    Step.COMPLETE, Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.FAIL, Step.LOSE, Step.DIE,
    Step.CANCEL, Step.EXPIRE,
)  # fmt: skip
LATER_MS = 86_400_000


async def take(store: Store, process_id: int, jobs: int = 10, queue: str = "q") -> list[ClaimedJob]:
    """All that the rules allow: a claim that meets full keys may answer less than there is."""
    taken: list[ClaimedJob] = []
    misses = 0
    while misses < 3 and len(taken) < jobs:
        found = await claim_of(store, process_id, jobs - len(taken), queue=queue)
        misses = 0 if found else misses + 1
        taken += found
    return taken


def keys(jobs: Sequence[ClaimedJob]) -> Counter[str | None]:
    return Counter(job.key for job in jobs)


async def bound(store: Store, queue: int | None = None, key: int | None = None) -> None:
    await store.set_queue(QueueRules(name="q", concurrency=queue, concurrency_per_key=key))


async def test_a_queue_runs_so_many_jobs_over_all_processes(house: House, store: Store) -> None:
    other = await house.opened()
    await bound(store, queue=3)
    await add(store, *numbered("k", 10), queue="q")
    await add(store, *numbered("k", 10), queue="free")
    one_id, other_id = await enter(store), await enter(other)
    mine = await take(store, one_id, 2)
    theirs = await take(other, other_id)
    assert (len(mine), len(theirs)) == (2, 1)
    assert await take(store, one_id) == []
    assert len(await take(store, one_id, queue="free")) == 10
    await store.finish(ended(mine[:1]))
    assert len(await take(other, other_id)) == 1
    await other.finish(ended(theirs))
    await store.finish(ended(mine[1:]))
    assert len(await take(store, one_id)) == 2
    assert await queue_counts(store, "q") == {
        JobState.COMPLETED: 3, JobState.RUNNING: 3, JobState.AVAILABLE: 4,
    }  # fmt: skip


async def test_a_bound_queue_is_worked_off_in_order(store: Store) -> None:
    await bound(store, queue=2)
    ids = await add(store, *numbered("k", 7), queue="q")
    process_id = await enter(store)
    done: list[int] = []
    while jobs := await take(store, process_id):
        assert len(jobs) <= 2
        done += [job.id for job in jobs]
        await store.finish(ended(jobs))
    assert done == ids


async def test_a_key_runs_so_many_jobs_over_all_processes(house: House, store: Store) -> None:
    other = await house.opened()
    await bound(store, key=1)
    for key in ("a", "b", None):
        await add(store, "1", "2", "3", queue="q", key=key)
    one_id, other_id = await enter(store), await enter(other)
    mine = await take(store, one_id, 1)
    assert keys(mine) == {"a": 1}
    theirs = await take(other, other_id)
    assert keys(theirs) == {"b": 1, None: 3}  # jobs without a key are not bound
    assert await take(store, one_id) == []
    await store.finish(ended(mine))
    assert keys(await take(other, other_id)) == {"a": 1}
    await other.finish(ended(theirs))
    assert keys(await take(store, one_id)) == {"b": 1}


async def test_a_key_is_of_its_queue(store: Store) -> None:
    await bound(store, key=1)
    await store.set_queue(QueueRules(name="r", concurrency_per_key=1))
    await add(store, "1", "2", queue="q", key="a")
    await add(store, "1", "2", queue="r", key="a")
    await add(store, "1", "2", queue="free", key="a")
    process_id = await enter(store)
    assert [len(await take(store, process_id, queue=queue)) for queue in ("q", "r", "free")] == [
        1, 1, 2,
    ]  # fmt: skip


async def test_tenants_and_priorities_share_the_bounds(store: Store) -> None:
    await bound(store, queue=3, key=2)
    for tenant in ("t", "u", "v"):
        await add(store, "1", "2", queue="q", key="a", tenant=tenant)
    process_id = await enter(store)
    taken = [
        job
        for tenant in ("t", "u", "v")
        for job in await claim_of(store, process_id, queue="q", tenant=tenant)
    ]
    assert len(taken) == 2


async def test_both_bounds_hold_together(store: Store) -> None:
    await bound(store, queue=3, key=2)
    await add(store, *numbered("a", 5), queue="q", key="a")
    await add(store, *numbered("b", 5), queue="q", key="b")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    assert len(jobs) == 3
    assert max(keys(jobs).values()) <= 2
    rounds = 0
    while jobs:
        await store.finish(ended(jobs))
        jobs = await take(store, process_id)
        assert len(jobs) <= 3
        assert not jobs or max(keys(jobs).values()) <= 2
        rounds += 1
    assert rounds <= 6
    assert await queue_counts(store, "q") == {JobState.COMPLETED: 10}


async def test_a_full_key_does_not_hold_up_the_others(store: Store) -> None:
    await bound(store, key=1)
    await add(store, *numbered("a", 300), queue="q", key="full")
    await add(store, "b", queue="q", key="free")
    process_id = await enter(store)
    assert keys(await take(store, process_id, 1)) == {"full": 1}
    found: list[ClaimedJob] = []
    for _ in range(40):
        found += await claim_of(store, process_id, 10, queue="q")
    assert keys(found) == {"free": 1}


@pytest.mark.parametrize("step", ALL_STEPS, ids=str)
async def test_a_job_that_ends_its_run_makes_room(store: Store, step: Step) -> None:
    await bound(store, queue=1, key=1)
    await add(store, "a", "b", queue="q", key="x")
    process_id = await enter(store)
    for _ in range(2):
        first = await take(store, process_id)
        assert len(first) == 1
        assert await take(store, process_id) == []
        await store.finish(ended(first, step, delay_ms=LATER_MS))
    final = step not in {Step.RELEASE, Step.DIE, Step.RETRY, Step.SNOOZE}
    again = await take(store, process_id)
    assert len(again) == (1 if step in {Step.RELEASE, Step.DIE} else 0)
    counted = await queue_counts(store, "q")
    assert sum(counted.values()) == 2
    assert (JobState.AVAILABLE in counted) == (not final and bool(again))


async def test_a_record_that_is_refused_makes_no_room(store: Store) -> None:
    await bound(store, queue=2, key=2)
    await add(store, *numbered("k", 9), queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    assert await store.finish([*ended(jobs[:1]), *ended(jobs[:1]), *ended(jobs[:1])]) == 2
    assert len(await take(store, process_id)) == 1
    assert await store.finish(ended(jobs[:1])) == 1
    assert await take(store, process_id) == []


@pytest.mark.parametrize("known", [True, False])
async def test_a_rescue_makes_room(house: House, store: Store, known: bool) -> None:
    await bound(store, queue=3, key=2)
    await add(store, "1", "2", "3", "4", queue="q", key="x")
    await add(store, "1", "2", queue="q", key="y")
    dead, heir = await enter(store), await enter(store)
    jobs = await take(store, dead)
    assert len(jobs) == 3
    assert await take(store, heir) == []
    row = await process_row(store, dead)
    assert await store.rescue(row, ended(jobs[:1]), known=known) == 2
    again = await take(store, heir)
    assert len(again) == 3
    assert max(keys(again).values()) <= 2


async def test_a_request_to_cancel_makes_room_when_the_run_ends(store: Store) -> None:
    await bound(store, key=1)
    first, _ = await add(store, "a", "b", queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    await store.cancel(JobFilter(ids=(first,)))
    assert await take(store, process_id) == []
    await store.finish(ended(jobs, Step.RELEASE))
    assert [job.id != first for job in await take(store, process_id)] == [True]


async def test_a_blocked_job_can_be_cancelled_expired_and_deleted(
    house: House, store: Store
) -> None:
    await bound(store, key=1)
    ids = await add(store, "a", "b", queue="q", key="x")
    await add(store, "c", queue="q", key="x", expires_in_ms=1000)
    await add(store, "d", queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    assert [job.id for job in jobs] == ids[:1]
    assert await store.cancel(JobFilter(ids=(ids[1],))) == 1
    house.clock.move_to(2.0)
    assert await store.expire() == 1
    assert await store.delete(JobFilter(ids=(ids[1],))) == 1
    await store.finish(ended(jobs))
    assert len(await take(store, process_id)) == 1
    assert await queue_counts(store, "q") == {
        JobState.COMPLETED: 1, JobState.EXPIRED: 1, JobState.RUNNING: 1,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["cancel", "expire", "reschedule", "retry"])
async def test_a_job_that_was_let_in_and_does_not_come_lets_the_next_one_in(
    house: House, store: Store, how: str
) -> None:
    await bound(store, key=1)
    fields = {"queue": "q", "key": "x"}
    await add(store, "a", **fields)
    (second,) = await add(store, "b", expires_in_ms=1000, **fields)
    (third,) = await add(store, "c", **fields)
    process_id = await enter(store)
    jobs = await take(store, process_id)
    await store.finish(ended(jobs))
    where = JobFilter(ids=(second,))
    match how:
        case "cancel":
            assert await store.cancel(where) == 1
        case "expire":
            house.clock.move_to(2.0)
            assert await store.expire() == 1
        case "reschedule":
            assert await store.reschedule(where, LATER_MS) == 1
        case "retry":
            jobs = await take(store, process_id)
            await store.finish(ended(jobs, Step.RETRY, delay_ms=LATER_MS))
    assert [job.id for job in await take(store, process_id)] == [third]


async def test_a_cancelled_job_that_was_blocked_runs_when_it_is_revived(store: Store) -> None:
    await bound(store, key=1)
    _, second = await add(store, "a", "b", queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    await store.cancel(JobFilter(ids=(second,)))
    await store.finish(ended(jobs))
    await store.revive(JobFilter(ids=(second,)))
    assert [job.id for job in await take(store, process_id)] == [second]


async def test_a_job_that_comes_while_its_key_is_full_waits_its_turn(store: Store) -> None:
    await bound(store, key=1)
    await add(store, "a", queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    (late,) = await add(store, "b", queue="q", key="x")
    assert await take(store, process_id) == []
    await store.finish(ended(jobs))
    assert [job.id for job in await take(store, process_id)] == [late]


async def test_a_job_for_later_does_not_take_the_room_of_one_that_is_due(
    house: House, store: Store
) -> None:
    await bound(store, key=1)
    await add(store, "a", queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    await store.finish(ended(jobs, Step.RETRY, delay_ms=5000))
    (second,) = await add(store, "b", queue="q", key="x")
    jobs = await take(store, process_id)
    assert [job.id for job in jobs] == [second]
    house.clock.move_to(6.0)
    assert await take(store, process_id) == []
    await store.finish(ended(jobs))
    assert len(await take(store, process_id)) == 1


async def test_blocked_jobs_are_free_when_the_rules_go_away(house: House, store: Store) -> None:
    other = await house.opened()
    await bound(store, queue=2, key=1)
    await add(store, "1", "2", "3", "4", queue="q", key="x")
    process_id = await enter(store)
    first = await take(store, process_id)
    assert len(first) == 1
    await bound(other)
    assert len(await take(store, process_id)) == 3
    assert len(await store.survey(["q"])) == 0
    await store.finish(ended(first))


async def test_rules_that_are_loosened_let_more_go_and_tightened_ones_less(store: Store) -> None:
    await bound(store, key=1)
    await add(store, *numbered("k", 10), queue="q", key="x")
    process_id = await enter(store)
    running = await take(store, process_id)
    await bound(store, key=4)
    running += await take(store, process_id)
    assert len(running) == 4
    await bound(store, key=2)
    await store.finish(ended(running[:2]))
    assert await take(store, process_id) == []
    await store.finish(ended(running[2:3]))
    assert len(await take(store, process_id)) == 1


async def test_rules_that_come_while_jobs_run_count_those(store: Store) -> None:
    await add(store, *numbered("k", 6), queue="q", key="x")
    process_id = await enter(store)
    running = await take(store, process_id, 3)
    await bound(store, queue=4, key=4)
    running += await take(store, process_id)
    assert len(running) == 4
    await store.finish(ended(running))
    assert len(await take(store, process_id)) == 2


async def test_a_survey_shows_a_flow_again_whose_key_has_room(store: Store) -> None:
    await bound(store, key=1)
    await add(store, "a", "b", queue="q", key="x")
    process_id = await enter(store)
    jobs = await take(store, process_id)
    await store.finish(ended(jobs))
    assert [flow.queue for flow in await store.survey(["*"])] == ["q"]


async def test_tidying_changes_nothing_that_is_right(store: Store) -> None:
    await bound(store, queue=3, key=1)
    for key in "abcde":
        await add(store, "1", "2", queue="q", key=key)
    process_id = await enter(store)
    jobs = await take(store, process_id)
    await store.tidy()
    assert await take(store, process_id) == []
    await store.finish(ended(jobs[:1]))
    await store.tidy()
    assert len(await take(store, process_id)) == 1
    jobs = jobs[1:]


async def test_two_processes_at_once_never_run_too_many(house: House, store: Store) -> None:
    other = await house.opened()
    await bound(store, queue=5, key=2)
    await store.enqueue(
        [job for number in range(60) for job in new("x", queue="q", key=f"key-{number % 4}")]
    )
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    done = 0

    async def work(mine: Store, process_id: int) -> None:
        nonlocal done
        for _ in range(400):
            if done == 60:
                return
            jobs = await claim_of(mine, process_id, 3, queue="q")
            # Noted when the claim is known and gone before the finish is: never too many here.
            for job in jobs:
                running.update([str(job.key), "all"])
            for name, count in running.items():
                most[name] = max(most[name], count)
            await asyncio.sleep(0)
            for job in jobs:
                running.subtract([str(job.key), "all"])
            await mine.finish(ended(jobs))
            done += len(jobs)

    await asyncio.gather(work(store, await enter(store)), work(other, await enter(other)))
    assert done == 60
    assert most["all"] <= 5
    assert max(most[f"key-{number}"] for number in range(4)) <= 2
    assert await queue_counts(store, "q") == {JobState.COMPLETED: 60}
