"""What every store does when somebody tidies up."""

from mailrace.queue import JobState, Step, Store
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Enqueued
from mailrace.queue.queuerules import QueueRules
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
    numbered,
    queue_counts,
    some,
)  # fmt: skip

DAY_S = 86_400.0
ALL_FINAL = dict.fromkeys(
    (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.UNCERTAIN),
    3 * DAY_S,
)


# Expiry


async def test_waiting_jobs_expire_when_their_time_is_over(house: House, store: Store) -> None:
    batch_id = await fill(store, 0)
    fields = {"batch_id": batch_id, "queue": "q"}
    process_id = await enter(store)
    await add(store, "retryable", expires_in_ms=1000, **fields)
    await store.finish(ended(await claim_of(store, process_id, queue="q"), Step.RETRY))
    await add(store, "running", expires_in_ms=1000, tenant="t", **fields)
    running = await claim_of(store, process_id, queue="q", tenant="t")
    await add(store, "available", expires_in_ms=1000, **fields)
    await add(store, "scheduled", expires_in_ms=1000, delay_ms=10**9, **fields)
    await add(store, "later", expires_in_ms=9000, **fields)
    await add(store, "never", **fields)
    house.clock.move_to(0.999)
    assert await store.expire() == 0
    house.clock.move_to(1.001)
    assert await store.expire() == 3
    assert await store.expire() == 0
    assert house.states(batch_id) == {
        "retryable": JobState.EXPIRED, "running": JobState.RUNNING, "available": JobState.EXPIRED,
        "scheduled": JobState.EXPIRED, "later": JobState.AVAILABLE, "never": JobState.AVAILABLE,
    }  # fmt: skip
    expected = {JobState.EXPIRED: 3, JobState.RUNNING: 1, JobState.AVAILABLE: 2}
    assert await counts(store, batch_id) == await queue_counts(store, "q") == expected
    rows = await store.find(JobFilter(states=(JobState.EXPIRED,)))
    assert {row.ended_ms for row in rows} == {now_ms(house)}
    assert await store.finish(ended(running)) == 0
    assert len(await claim_of(store, process_id, queue="q")) == 2


async def test_so_many_jobs_expire_at_a_time(house: House, store: Store) -> None:
    await add(store, *numbered("k", 10), expires_in_ms=1)
    house.clock.move_to(1.0)
    assert [await store.expire(limit=4) for _ in range(4)] == [4, 4, 2, 0]
    assert await queue_counts(store) == {JobState.EXPIRED: 10}


# Retention


async def test_each_state_is_kept_as_long_as_it_says(house: House, store: Store) -> None:
    process_id = await enter(store)
    made = {}
    for step in (Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE, Step.RETRY):
        (made[step],) = await add(store, step.value)
        jobs = await claim_of(store, process_id)
        await store.finish(ended(jobs, step, delay_ms=1, at_ms=now_ms(house)))
    await store.tidy()
    keep_s = {
        JobState.COMPLETED: 5 * DAY_S,
        JobState.FAILED: 10 * DAY_S,
        JobState.CANCELLED: 3600.0,
    }
    house.clock.move_to(3599.0)
    assert await store.retain(keep_s) == 0
    house.clock.move_to(3601.0)
    assert await store.retain(keep_s) == 1
    assert set(house.everything()) == set(made.values()) - {made[Step.CANCEL]}
    # A store may remove completed jobs by whole days.
    house.clock.move_to(7 * DAY_S)
    await store.tidy()
    await store.retain(keep_s)
    left = {made[step] for step in (Step.FAIL, Step.LOSE, Step.EXPIRE, Step.RETRY)}
    assert set(house.everything()) == left
    house.clock.move_to(10 * DAY_S + 1)
    assert await store.retain(keep_s) == 1
    assert set(house.everything()) == left - {made[Step.FAIL]}
    assert await queue_counts(store) == {
        JobState.UNCERTAIN: 1, JobState.EXPIRED: 1, JobState.RETRYABLE: 1,
    }  # fmt: skip


async def test_so_many_jobs_are_removed_at_a_time(house: House, store: Store) -> None:
    await add(store, *numbered("k", 10))
    jobs = await claim_of(store, await enter(store))
    await store.finish(ended(jobs, Step.FAIL))
    house.clock.move_to(10.0)
    keep_s = {JobState.FAILED: 5.0}
    assert [await store.retain(keep_s, limit=4) for _ in range(4)] == [4, 4, 2, 0]
    assert await store.retain({}) == 0
    assert await queue_counts(store) == {}


async def test_an_idempotency_key_outlives_its_job(house: House, store: Store) -> None:
    (job_id,) = await add(store, "a", idempotency="x")
    jobs = await claim_of(store, await enter(store))
    await store.finish(ended(jobs, Step.FAIL))
    house.clock.move_to(10.0)
    assert await store.retain({JobState.FAILED: 5.0}) == 1
    await store.tidy()
    assert await store.enqueue(new("a", idempotency="x")) == [Enqueued(job_id, new=False)]


async def test_a_job_that_was_removed_takes_its_attempts_along(house: House, store: Store) -> None:
    (job_id,) = await add(store, "a")
    await store.finish(ended(await claim_of(store, await enter(store)), Step.FAIL))
    house.clock.move_to(10.0)
    await store.retain({JobState.FAILED: 5.0})
    assert await store.detail(job_id) is None
    assert await store.find(JobFilter(text="reason")) == []


# Tidying


async def test_tidying_keeps_all_sums_and_all_jobs(house: House, store: Store) -> None:
    batch_id = await fill(store, 20)
    await add(store, *numbered("k", 10), idempotency=None, delay_ms=400 * 86_400_000)
    await store.set_queue(QueueRules(name="gated", concurrency=2, concurrency_per_key=1))
    await add(store, *numbered("k", 5), queue="gated", key="x")
    process_id = await enter(store)
    await claim_of(store, process_id, queue="gated")
    for step in (Step.COMPLETE, Step.FAIL, Step.RETRY, Step.LOSE, Step.SNOOZE):
        jobs = await claim_of(store, process_id, 3, queue=f"batch:{batch_id}")
        await store.finish(ended(jobs, step, delay_ms=800 * 86_400_000, at_ms=now_ms(house)))
    before = house.everything()
    sums = {figures.queue: some(figures.counts) for figures in await store.queue_figures()}
    report = await store.report(batch_id)
    for moment_s in (0.0, 61.0, 3700.0, 2 * DAY_S, 40 * DAY_S, 300 * DAY_S):
        house.clock.move_to(moment_s)
        await store.tidy()
        await (await house.opened()).tidy()
        assert house.everything() == before
        assert {f.queue: some(f.counts) for f in await store.queue_figures()} == sums
        assert (await store.report(batch_id)).counts == report.counts
        assert (await store.report(batch_id)).first_ms == report.first_ms
    assert [row.id for row in await store.processes()] == [process_id]
    assert [r.reason for r in await store.reasons(batch_id)] == ["reason"] * 3


async def test_what_is_kept_of_a_batch_outlives_its_jobs(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    queue = f"batch:{batch_id}"
    jobs = await claim_of(store, await enter(store), queue=queue)
    await store.finish(ended(jobs))
    house.clock.move_to(10 * DAY_S)
    await store.tidy()
    await store.retain(ALL_FINAL)
    assert house.everything() == {}
    answers = await store.enqueue(new("k000", "k001", batch_id=batch_id))
    assert not any(answer.new for answer in answers)  # nobody is written to twice
