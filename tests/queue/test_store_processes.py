"""What every store has to do with processes, numbers and limits; see also `test_store.py`."""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable

import pytest

from mailrace.pool import Rate, Schedule
from mailrace.queue import JobState, Step, Store
from mailrace.queue.jobs import Finished, ProcessRow
from tests.queue.houses import House, counts, ended, fill, new

RELEASED = Finished(0, 0, Step.RELEASE, JobState.AVAILABLE, at_ms=1)
LOST = Finished(0, 0, Step.LOSE, JobState.UNCERTAIN, None, "no reply", "died", 1)


async def row(store: Store, process_id: int) -> ProcessRow:
    return next(process for process in await store.processes() if process.id == process_id)


# Processes


async def test_a_process_id_is_never_used_again(store: Store) -> None:
    first = await store.register("a", 30)
    assert await store.retire(first)
    assert await store.register("b", 30) > first


async def test_a_lease_lasts_as_long_as_it_is_renewed(house: House, store: Store) -> None:
    process_id = await store.register("journal-name", 30)
    expires_ms = int(house.clock.unix_s() * 1000) + 30_000
    assert await store.processes() == [
        ProcessRow(id=process_id, journal="journal-name", expires_ms=expires_ms)
    ]
    house.clock.move_to(12.0)
    assert await asyncio.to_thread(store.renewer(process_id, 30))
    assert (await row(store, process_id)).expires_ms == expires_ms + 12_000
    assert await store.retire(process_id)
    assert not await asyncio.to_thread(store.renewer(process_id, 30))
    assert await store.processes() == []


async def test_rescue_writes_what_the_journal_says_and_then_the_rest(store: Store) -> None:
    batch_id = await fill(store, 6)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 5)
    records = [*ended(jobs[:2]), *ended(jobs[2:3], Step.LOSE)]
    assert await store.rescue(await row(store, process_id), records, rest=RELEASED) == 2
    assert await counts(store, batch_id) == {
        JobState.COMPLETED: 2,
        JobState.UNCERTAIN: 1,
        JobState.AVAILABLE: 3,
    }
    assert await store.processes() == []


async def test_rescue_may_hold_the_rest(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    process_id = await store.register("j", 30)
    await store.claim(process_id, batch_id, 2)
    assert await store.rescue(await row(store, process_id), [], rest=LOST) == 2
    assert await counts(store, batch_id) == {JobState.UNCERTAIN: 2}
    assert [attempt.step for attempt in house.attempts(batch_id)] == ["lose", "lose"]


async def test_a_process_that_renewed_meanwhile_is_not_rescued(house: House, store: Store) -> None:
    batch_id = await fill(store, 2)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 2)
    seen = await row(store, process_id)
    house.clock.move_to(31.0)
    await asyncio.to_thread(store.renewer(process_id, 30))
    assert await store.rescue(seen, ended(jobs, Step.LOSE), rest=LOST) is None
    assert await counts(store, batch_id) == {JobState.RUNNING: 2}
    assert await store.finish(ended(jobs)) == 0


async def test_of_two_rescuers_one_rescues(house: House) -> None:
    one, other = house.open(), house.open()
    batch_id = await fill(one, 4)
    process_id = await one.register("j", 30)
    await one.claim(process_id, batch_id, 4)
    seen = await row(other, process_id)
    answers = await asyncio.gather(
        one.rescue(seen, [], rest=RELEASED), other.rescue(seen, [], rest=LOST)
    )
    assert sorted(answers, key=str) == [4, None]
    assert sum((await counts(one, batch_id)).values()) == 4
    assert JobState.RUNNING not in await counts(one, batch_id)


async def test_a_process_that_holds_jobs_is_left_to_be_rescued(store: Store) -> None:
    batch_id = await fill(store, 1)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 1)
    assert not await store.retire(process_id)
    assert [process.id for process in await store.processes()] == [process_id]
    await store.finish(ended(jobs))
    assert await store.retire(process_id)
    assert await store.retire(process_id)
    assert await store.processes() == []


# Reports


async def test_the_numbers_add_up_at_every_step(house: House, store: Store) -> None:
    batch_id = await fill(store, 20)
    process_id = await store.register("j", 30)
    for step in (Step.COMPLETE, Step.FAIL, Step.RETRY, Step.LOSE, Step.RELEASE):
        jobs = await store.claim(process_id, batch_id, 3)
        await store.finish(ended(jobs, step, run_at_ms=10**15))
    await store.claim(process_id, batch_id, 2)
    report = await store.report(batch_id)
    assert set(report.counts) == set(JobState)
    assert report.counts == {
        JobState.AVAILABLE: 6,
        JobState.RUNNING: 2,
        JobState.RETRYABLE: 3,
        JobState.COMPLETED: 3,
        JobState.FAILED: 3,
        JobState.UNCERTAIN: 3,
    }
    assert (report.accepted, report.final, report.next_due_ms) == (20, 9, 10**15)


async def test_a_batch_without_attempts_has_no_times(store: Store) -> None:
    report = await store.report(await fill(store, 0))
    assert (report.first_ms, report.last_ms, report.rate, report.accepted) == (None, None, 0.0, 0)


async def test_the_rate_is_of_the_last_minute(store: Store) -> None:
    batch_id = await fill(store, 900)
    process_id = await store.register("j", 30)
    start_ms = 1_800_000_000_000
    for second in range(300):
        jobs = await store.claim(process_id, batch_id, 1 if second < 200 else 7)
        await store.finish(ended(jobs, at_ms=start_ms + 1000 * second))
    report = await store.report(batch_id)
    assert (report.first_ms, report.last_ms) == (start_ms, start_ms + 299_000)
    assert 6.5 <= report.rate <= 7.5


async def test_a_release_is_no_attempt(store: Store) -> None:
    batch_id = await fill(store, 1)
    jobs = await store.claim(await store.register("j", 30), batch_id, 1)
    await store.finish(ended(jobs, Step.RELEASE))
    report = await store.report(batch_id)
    assert (report.first_ms, report.rate) == (None, 0.0)


async def test_reasons_are_grouped_the_most_frequent_first(store: Store) -> None:
    batch_id = await fill(store, 200)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 200)
    await store.finish(ended(jobs[:100], reason="250"))
    await store.finish(ended(jobs[100:105], Step.FAIL, reason="550", detail="no such user"))
    await store.finish(ended(jobs[105:107], Step.LOSE, reason="no reply", detail="gone"))
    await store.finish(ended(jobs[107:110], Step.RETRY, reason="550", detail="later", run_at_ms=9))
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
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 1)
    await store.finish(ended(jobs, Step.RETRY, reason="451", run_at_ms=0))
    jobs = await store.claim(process_id, batch_id, 1)
    assert await store.reasons(batch_id) == []
    await store.finish(ended(jobs, Step.FAIL, reason="550"))
    assert [(r.reason, r.jobs) for r in await store.reasons(batch_id)] == [("550", 1)]


# Limits


async def test_slots_of_a_limit_follow_each_other(house: House) -> None:
    one, other = house.open(), house.open()
    schedule = Schedule.of(Rate(10, 1.0))
    now_s = house.clock.unix_s()
    taken_s = [await store.take_slots("relay", schedule, 3) for store in (one, other, one, other)]
    assert taken_s[0] == pytest.approx(now_s, abs=1e-5)
    for earlier_s, later_s in itertools.pairwise(taken_s):
        assert later_s - earlier_s == pytest.approx(3 * schedule.interval_s, abs=1e-5)
    assert await one.take_slots("another", schedule, 1) == pytest.approx(now_s, abs=1e-5)
    house.clock.move_to(1000.0)
    assert await one.take_slots("relay", schedule, 1) == pytest.approx(now_s + 1000, abs=1e-5)


# Several processes


def in_threads(count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Runs the work in so many threads at once, each with a loop of its own."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    async def begin() -> None:
        start.wait()
        await work()

    def thread() -> None:
        try:
            asyncio.run(begin())
        except BaseException as failure:  # noqa: BLE001 - raised below, where pytest sees it
            failures.append(failure)

    threads = [threading.Thread(target=thread) for _ in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if failures:
        raise failures[0]


async def test_stores_on_the_same_file_share_jobs_and_never_one_job(
    house: House, store: Store
) -> None:
    batch_id = await fill(store, 400)
    claimed: list[tuple[int, int]] = []

    async def work() -> None:
        mine = house.open()
        process_id = await mine.register("j", 30)
        while jobs := await mine.claim(process_id, batch_id, 7):
            claimed.extend((job.id, job.lease) for job in jobs)
            assert await mine.finish(ended(jobs)) == 0

    await asyncio.to_thread(in_threads, 4, work)
    assert len(claimed) == 400
    assert len({job_id for job_id, _ in claimed}) == 400
    assert await counts(store, batch_id) == {JobState.COMPLETED: 400}


async def test_stores_opened_at_the_same_moment_make_one_schema(house: House) -> None:
    async def work() -> None:
        mine = house.open()
        batch = await mine.open_batch("batch", "kind", b"{}")
        await mine.enqueue(batch.id, new(*(f"k{number}" for number in range(50))))

    await asyncio.to_thread(in_threads, 6, work)
    store = house.open()
    (batch,) = await store.batches()
    assert await counts(store, batch.id) == {JobState.AVAILABLE: 50}


async def test_closing_twice_is_closing_once(store: Store) -> None:
    await store.close()
    await store.close()
