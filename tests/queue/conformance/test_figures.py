"""What every store tells of how much there is and was."""

import pytest

from mailrace.queue import JobState, Step, Store
from mailrace.queue.figures import MINUTE_MS
from mailrace.queue.jobrows import JobFilter
from tests.queue.houses import (
    House,
    add,
    claim_of,
    ended,
    enter,
    fill,
    now_ms,
    numbered,
    queue_counts,
)  # fmt: skip


async def test_an_empty_store_has_no_figures(house: House, store: Store) -> None:
    assert await store.queue_figures() == []
    assert await store.throughput(1.0) == []
    assert await store.now_ms() == now_ms(house)
    house.clock.move_to(12.345)
    assert await store.now_ms() == now_ms(house)


async def test_figures_count_jobs_by_queue_and_state(house: House, store: Store) -> None:
    await add(store, *numbered("k", 9), queue="a")
    await add(store, *numbered("k", 2), queue="a", delay_ms=1000)
    await add(store, "x", queue="b")
    batch_id = await fill(store, 3)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, 5, queue="a")
    await store.finish([*ended(jobs[:2]), *ended(jobs[2:3], Step.RETRY, delay_ms=1000)])
    for _ in range(2):
        assert {figures.queue for figures in await store.queue_figures()} == {
            "a", "b", f"batch:{batch_id}",
        }  # fmt: skip
        assert await queue_counts(store, "a") == {
            JobState.AVAILABLE: 4, JobState.SCHEDULED: 2, JobState.RUNNING: 2,
            JobState.COMPLETED: 2, JobState.RETRYABLE: 1,
        }  # fmt: skip
        assert await queue_counts(store, "b") == {JobState.AVAILABLE: 1}
        assert await queue_counts(store, f"batch:{batch_id}") == {JobState.AVAILABLE: 3}
        await store.tidy()


async def test_figures_tell_what_is_due_and_since_when(house: House, store: Store) -> None:
    await add(store, "a", "b")
    house.clock.move_to(3.0)
    await add(store, "c")
    await add(store, "d", delay_ms=4000)
    house.clock.move_to(5.0)
    process_id = await enter(store)
    (figures,) = await store.queue_figures()
    assert (figures.due, figures.oldest_due_ms) == (3, 5000)
    jobs = await claim_of(store, process_id, 2)
    (figures,) = await store.queue_figures()
    assert (figures.due, figures.oldest_due_ms) == (1, 2000)
    await store.finish(ended(jobs, Step.RETRY, delay_ms=1000))
    house.clock.move_to(8.0)
    (figures,) = await store.queue_figures()
    assert (figures.due, figures.oldest_due_ms) == (4, 5000)
    await store.cancel(JobFilter())
    (figures,) = await store.queue_figures()
    assert (figures.due, figures.oldest_due_ms) == (0, 0)


@pytest.mark.parametrize("tidied", [False, True])
async def test_throughput_counts_what_ended_by_the_minute(
    house: House, store: Store, tidied: bool
) -> None:
    process_id = await enter(store)
    start_ms = -(-now_ms(house) // MINUTE_MS) * MINUTE_MS
    house.clock.move_to((start_ms - now_ms(house)) / 1000)
    # By queue: how many of its jobs ended how, in the middle of the first minute and of the fourth.
    for place, (queue, completed, failed, retried) in {
        0: ("a", 3, 2, 1), 3: ("a", 5, 0, 2),
    }.items():  # fmt: skip
        house.clock.move_to((start_ms - 1_800_000_000_000) / 1000 + (place + 0.5) * 60)
        await add(store, *numbered("k", completed + failed + retried), queue=queue)
        jobs = await claim_of(store, process_id, 99, queue=queue)
        records = [
            *ended(jobs[:completed], at_ms=now_ms(house)),
            *ended(jobs[completed : completed + failed], Step.FAIL, at_ms=now_ms(house)),
            *ended(
                jobs[completed + failed :], Step.RETRY, delay_ms=10**9, at_ms=now_ms(house)
            ),
        ]  # fmt: skip
        assert await store.finish(records) == 0
        if tidied:
            await store.tidy()
    house.clock.move_to(house.clock.monotonic_s() + 2 * 60)
    if tidied:
        await store.tidy()
    found = [row for row in await store.throughput(5.0) if row.queue == "a"]
    assert [row.start_ms for row in found] == sorted(row.start_ms for row in found)
    ends = {
        row.start_ms: (row.completed, row.failed, row.retried)
        for row in found
        if row.completed or row.failed or row.retried
    }
    assert ends == {start_ms: (3, 2, 1), start_ms + 3 * MINUTE_MS: (5, 0, 2)}


async def test_throughput_is_of_each_queue_and_of_the_last_hours(
    house: House, store: Store
) -> None:
    process_id = await enter(store)
    for hours, queue in enumerate(("a", "b", "a")):
        house.clock.move_to(hours * 3600.0 + 90.0)
        await add(store, "x", queue=queue)
        jobs = await claim_of(store, process_id, queue=queue)
        await store.finish(ended(jobs, at_ms=now_ms(house)))
    house.clock.move_to(2 * 3600.0 + 600.0)

    async def completed(hours: float) -> dict[str, int]:
        sums: dict[str, int] = {}
        for row in await store.throughput(hours):
            sums[row.queue] = sums.get(row.queue, 0) + row.completed
        return {queue: jobs for queue, jobs in sums.items() if jobs}

    assert await completed(0.5) == {"a": 1}
    assert await completed(1.5) == {"a": 1, "b": 1}
    assert await completed(5.0) == {"a": 2, "b": 1}
