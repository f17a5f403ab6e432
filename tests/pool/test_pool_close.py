"""The end of a pool: what is finished, what is handed back, and who may ask for it."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from mailrace.errors import MisuseError
from mailrace.pool import (
    CloseReport,
    JobState,
    MemorySettings,
    Pool,
    PoolClosedError,
    RateLimit,
)
from mailrace.pool.health import Code
from tests.pool.gated import WAIT_S, Bench, BoomError, adds_up, handed_back, worker_tasks
from tests.support.clock import settle


@pytest.fixture
def freed() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_close_finishes_what_waits_and_reports_a_clean_end() -> None:
    bench = Bench()
    await bench.pool.start()
    jobs = [await bench.pool.submit(bench.note, number) for number in range(5)]
    report = await bench.pool.close()
    assert report.clean
    assert report.ledger.completed == 5
    assert [await job for job in jobs] == list(range(5))
    assert not worker_tasks()
    assert bench.clock.sleepers == 0


async def test_closing_again_gives_the_same_report() -> None:
    bench = Bench()
    await bench.pool.start()
    await bench.pool.submit(bench.held)
    first = bench.closing(10.0)
    second = bench.closing(20.0)
    await settle()
    await bench.clock.advance(10.0)
    await bench.clock.advance(0.0)
    assert await first is await second
    assert await bench.pool.close() is await first
    bench.pool.close_soon()


async def test_the_earlier_of_two_deadlines_counts() -> None:
    bench = Bench()
    await bench.pool.start()
    job = await bench.pool.submit(bench.held)
    first = bench.closing(None)
    await bench.clock.advance(100.0)
    assert not first.done()
    second = bench.closing(5.0)
    third = bench.closing(50.0)
    await bench.clock.advance(5.0)
    assert first.done()
    assert second.done()
    assert third.done()
    assert handed_back(job)


async def test_whoever_stops_waiting_for_the_end_does_not_stop_it() -> None:
    bench = Bench()
    await bench.pool.start()
    job = await bench.pool.submit(bench.held, 1)
    closing = bench.closing()
    await settle()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    bench.gate.set()
    assert await job == 1
    assert (await bench.pool.close()).clean


async def test_closing_right_after_the_start_and_starting_again_is_refused() -> None:
    bench = Bench()
    start = asyncio.ensure_future(bench.pool.start())
    await asyncio.sleep(0)
    assert (await bench.pool.close()).clean
    await start
    with pytest.raises(PoolClosedError, match=r"closed.*new one"):
        await bench.pool.start()


async def test_a_closed_pool_takes_nothing_and_says_what_to_do() -> None:
    bench = Bench()
    async with bench.pool as pool:
        pass
    with pytest.raises(PoolClosedError, match="submit to a pool that is open"):
        await pool.submit(bench.note)
    with pytest.raises(PoolClosedError, match="submit to a pool that is open"):
        pool.submit_nowait(bench.note)
    with pytest.raises(PoolClosedError, match="submit to a pool that is open"):
        await asyncio.to_thread(pool.submit_threadsafe, bench.note)
    with pytest.raises(PoolClosedError):
        await anext(pool.map(bench.note, [1]))
    assert pool.ledger().accepted == 0
    assert repr(pool) == "<Pool pool: closed, 0 workers>"


async def test_submitters_that_wait_are_told_that_the_pool_closes() -> None:
    bench = Bench(queue_size=1)
    await bench.pool.start()
    await bench.pool.submit(bench.held)
    await settle()
    await bench.pool.submit(bench.note, "queued")
    waiting = [asyncio.ensure_future(bench.pool.submit(bench.note, n)) for n in range(3)]
    across = asyncio.ensure_future(asyncio.to_thread(bench.pool.submit_threadsafe, bench.note))
    async with asyncio.timeout(WAIT_S):
        while bench.pool.numbers().waiting_submits < 4:  # noqa: ASYNC110 - a thread's doing
            await asyncio.sleep(0.001)
    closing = bench.closing()
    await settle()
    for submit in waiting:
        with pytest.raises(PoolClosedError):
            await submit
    with pytest.raises(PoolClosedError):
        await across
    bench.gate.set()
    assert (await closing).clean
    assert bench.ran == [None, "queued"]
    adds_up(bench.pool)


async def test_what_is_not_done_by_the_deadline_is_in_the_report_with_all_it_needs() -> None:
    bench = Bench()
    await bench.pool.start()
    running = await bench.pool.submit(bench.held, 1)
    waiting = await bench.pool.options(key="ann", priority="low").submit(bench.note, 2)
    closing = bench.closing(3.0)
    await bench.clock.advance(2.9)
    assert not closing.done()
    await bench.clock.advance(0.2)
    report = await closing
    assert handed_back(running)
    assert handed_back(waiting)
    first, second = report.unfinished
    assert (first.id, first.state, first.attempts) == (running.id, JobState.RUNNING, 1)
    assert (first.function, first.args) == (bench.held, (1,))
    assert (second.id, second.state, second.attempts) == (waiting.id, JobState.AVAILABLE, 0)
    assert (second.function, second.args, second.kwargs) == (bench.note, (2,), {})
    assert second.options.key == "ann"
    assert second.due_in_s is None
    with pytest.raises(PoolClosedError, match="report of close"):
        await waiting
    adds_up(bench.pool)
    assert not worker_tasks()


async def test_close_without_the_queue_finishes_only_what_runs() -> None:
    bench = Bench()
    await bench.pool.start()
    running = await bench.pool.submit(bench.held, 1)
    waiting = await bench.pool.submit(bench.note, 2)
    await settle()
    closing = bench.closing(None, finish_queue=False)
    await settle()
    assert handed_back(waiting)
    bench.gate.set()
    assert [job.id for job in (await closing).unfinished] == [waiting.id]
    assert await running == 1


async def test_a_paused_pool_hands_back_what_waits_and_ends() -> None:
    bench = Bench()
    await bench.pool.start()
    running = await bench.pool.submit(bench.held, 1)
    await settle()
    bench.pool.pause()
    waiting = await bench.pool.submit(bench.note, 2)
    closing = bench.closing(None)
    await settle()
    assert handed_back(waiting)
    bench.gate.set()
    report = await closing
    assert await running == 1
    assert [job.id for job in report.unfinished] == [waiting.id]
    assert bench.ran == [1]


@pytest.mark.parametrize("paused", [True, False])
async def test_a_job_that_fails_while_the_rest_is_handed_back_gets_no_other_attempt(
    paused: bool,
) -> None:
    bench = Bench()
    await bench.pool.start()
    gate = asyncio.Event()

    async def fails() -> None:
        await gate.wait()
        raise BoomError

    job = await bench.retried_after(5.0).submit(fails)
    await settle()
    if paused:
        bench.pool.pause()
    closing = bench.closing(None, finish_queue=paused)
    await settle()
    gate.set()
    await settle()
    report = await closing
    assert handed_back(job)
    (unfinished,) = report.unfinished
    assert (unfinished.state, unfinished.attempts, unfinished.due_in_s) == (
        JobState.RETRYABLE,
        1,
        5.0,
    )


async def test_a_retry_that_is_due_before_the_deadline_is_waited_for() -> None:
    bench = Bench()
    await bench.pool.start()
    job = await bench.retried_after(5.0).submit(bench.boom)
    await settle()
    closing = bench.closing(10.0)
    await bench.clock.advance(4.0)
    assert not closing.done()
    await bench.clock.advance(1.0)
    assert (await closing).clean
    assert (job.state, job.attempts) == (JobState.FAILED, 2)


async def test_a_retry_that_is_due_after_the_deadline_is_handed_back_at_once() -> None:
    bench = Bench()
    await bench.pool.start()
    job = await bench.retried_after(100.0).submit(bench.boom)
    await bench.clock.advance(10.0)
    report = await bench.pool.close(30.0)
    assert handed_back(job)
    (unfinished,) = report.unfinished
    assert unfinished.due_in_s == 90.0
    assert unfinished.function == bench.boom
    adds_up(bench.pool)


async def test_a_deadline_that_comes_nearer_leaves_later_retries_behind() -> None:
    bench = Bench()
    await bench.pool.start()
    job = await bench.retried_after(100.0).submit(bench.boom)
    await settle()
    closing = bench.closing(None)
    await bench.clock.advance(10.0)
    assert not closing.done()
    bench.closing(60.0)
    await settle()
    assert handed_back(job)
    assert closing.done()


async def test_a_coroutine_that_ignores_its_cancel_has_its_grace_and_is_left_behind() -> None:
    bench = Bench(cancel_grace=2.0)
    await bench.pool.start()
    job = await bench.pool.options(name="mule").submit(bench.stubborn)
    await settle()
    closing = bench.closing(0)
    await bench.clock.advance(1.9)
    assert not closing.done()
    await bench.clock.advance(0.2)
    report = await closing
    assert report.abandoned == ("mule",)
    assert [unfinished.id for unfinished in report.unfinished] == [job.id]
    assert handed_back(job)
    bench.gate.set()
    await settle()
    assert not worker_tasks()
    assert handed_back(job)


async def test_a_coroutine_that_tidies_up_within_its_grace_is_waited_for() -> None:
    bench = Bench(cancel_grace=5.0)
    await bench.pool.start()
    tidied = []

    async def tidies() -> None:
        try:
            await bench.gate.wait()
        finally:
            await bench.clock.sleep_s(3.0)
            tidied.append(bench.clock.monotonic_s())

    await bench.pool.submit(tidies)
    await settle()
    closing = bench.closing(0)
    await bench.clock.advance(3.0)
    assert (await closing).abandoned == ()
    assert tidied == [3.0]


async def test_a_stuck_thread_does_not_hold_up_the_end(freed: threading.Event) -> None:
    began = threading.Event()

    def stuck() -> str:
        began.set()
        freed.wait(WAIT_S)
        return "late"

    pool = Pool(workers=1)
    await pool.start()
    job = await pool.submit(stuck)
    await asyncio.to_thread(began.wait, WAIT_S)
    report = await pool.close(0)
    assert report.abandoned == (job.name,)
    assert [unfinished.id for unfinished in report.unfinished] == [job.id]
    assert handed_back(job)
    (task,) = worker_tasks()
    freed.set()
    await asyncio.wait([task], timeout=WAIT_S)
    assert task.done()


@pytest.mark.parametrize("wait", [True, False])
async def test_streams_that_nobody_reads_do_not_hold_up_the_end(wait: bool) -> None:
    bench = Bench()
    await bench.pool.start()
    stream = bench.pool.outcomes(buffer=1, slow="wait" if wait else "drop newest")
    jobs = [await bench.pool.submit(bench.note, number) for number in range(5)]
    await settle()
    assert jobs[4].done() is not wait
    closing = bench.closing(None)
    await settle()
    assert (await closing).clean
    read = [outcome.value async for outcome in stream]
    assert read == (list(range(5)) if wait else [0])
    assert stream.missed == (0 if wait else 4)


async def test_jobs_that_a_rate_limit_holds_back_are_handed_back_at_the_deadline() -> None:
    bench = Bench(rate=RateLimit.of("1/h"))
    await bench.pool.start()
    jobs = [await bench.pool.submit(bench.note, number) for number in range(3)]
    closing = bench.closing(10.0)
    await bench.clock.advance(10.0)
    report = await closing
    assert [unfinished.id for unfinished in report.unfinished] == [job.id for job in jobs[1:]]
    assert bench.ran == [0]


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_job_may_close_its_pool_and_is_not_waited_for(workers: int) -> None:
    bench = Bench(workers=workers)
    reports = []

    async def closes() -> str:
        reports.append(await bench.pool.close(None))
        return "closed"

    await bench.pool.start()
    job = await bench.pool.submit(closes)
    others = [await bench.pool.submit(bench.note, number) for number in range(3)]
    assert await job == "closed"
    assert [await other for other in others] == [0, 1, 2]
    assert reports[0].clean
    await settle()
    assert not worker_tasks()
    adds_up(bench.pool)


async def test_jobs_may_all_close_their_pool_at_once() -> None:
    bench = Bench(workers=2)
    await bench.pool.start()
    jobs = [await bench.pool.submit(bench.pool.close, None) for _ in range(4)]
    reports = [await job for job in jobs[:2]]
    assert reports[0] is reports[1]
    assert bench.pool.ledger().completed == 4


async def test_a_job_that_closes_its_pool_and_fails_then_has_its_error() -> None:
    bench = Bench()

    async def closes() -> None:
        await bench.pool.close(5.0)
        raise BoomError

    await bench.pool.start()
    job = await bench.retried_after(1.0).submit(closes)
    with pytest.raises(BoomError):
        await job
    adds_up(bench.pool)


async def test_a_thread_job_may_close_its_pool(freed: threading.Event) -> None:
    pool = Pool(workers=1)
    loop = asyncio.get_running_loop()

    def closes() -> CloseReport:
        return asyncio.run_coroutine_threadsafe(pool.close(None), loop).result(WAIT_S)

    await pool.start()
    job = await pool.submit(closes)
    other = await pool.submit(time.monotonic)
    report = await job
    assert report.clean
    assert other.done()
    await settle()


async def test_a_job_that_closes_its_pool_beside_a_stuck_thread_goes_on(
    freed: threading.Event,
) -> None:
    pool = Pool(workers=1)

    def stuck() -> None:
        freed.wait(WAIT_S)

    async def closes() -> CloseReport:
        await pool.submit(stuck)
        return await pool.close(0.1)

    await pool.start()
    async with asyncio.timeout(WAIT_S):
        report = await (await pool.submit(closes))
    assert report.abandoned


async def test_a_job_that_only_begins_to_close_its_pool_is_waited_for_and_stays_alone() -> None:
    bench = Bench()
    inside = []

    async def begins_to_close() -> str:
        bench.pool.close_soon()
        inside.append(1)
        await bench.clock.sleep_s(3.0)
        inside.pop()
        return "done"

    async def looks() -> int:
        return len(inside)

    await bench.pool.start()
    job = await bench.pool.submit(begins_to_close)
    other = await bench.pool.submit(looks)
    await bench.clock.advance(3.0)
    assert await job == "done"
    assert await other == 0
    assert (await bench.pool.close()).clean


async def test_a_wrong_timeout_is_refused_and_closes_nothing() -> None:
    bench = Bench()
    async with bench.pool as pool:
        with pytest.raises(MisuseError, match="timeout is -1"):
            await pool.close(-1)
        assert await (await pool.submit(bench.note, 1)) == 1


def orders(pool: Pool) -> list[Callable[[], Awaitable[object]]]:
    """What only an open pool does."""

    def plain(call: Callable[[], object]) -> Callable[[], Awaitable[object]]:
        async def ordered() -> object:
            return call()

        return ordered

    return [
        plain(lambda: pool.resize(2, 3)),
        plain(lambda: pool.scale(1)),
        plain(pool.restart_workers),
        plain(lambda: pool.reconfigure(memory=MemorySettings(process_max_bytes=1 << 40))),
        plain(pool.pause),
        plain(pool.outcomes),
        pool.reprocess,
    ]


async def test_a_pool_that_closes_takes_no_orders_and_says_so() -> None:
    bench = Bench(workers=1)
    await bench.pool.start()
    job = await bench.pool.submit(bench.held)
    await settle()
    assert repr(bench.pool) == "<Pool pool: open, 1 workers>"
    closing = asyncio.ensure_future(bench.pool.close(None))
    await settle()
    assert repr(bench.pool) == "<Pool pool: closing, 1 workers>"
    for order in orders(bench.pool):
        with pytest.raises(PoolClosedError, match="pool pool is closing; make a new one"):
            await order()
    assert not job.done()
    assert bench.pool.cancel() == 1
    assert (await closing).ledger.cancelled == 1
    assert repr(bench.pool) == "<Pool pool: closed, 0 workers>"


def test_a_pool_whose_loop_has_ended_is_closed() -> None:
    pool = Pool(workers=1)

    async def leave() -> None:
        await pool.start()
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert "closed" in repr(pool)


async def test_what_is_done_to_a_closed_pool_brings_nobody_back() -> None:
    bench = Bench()
    async with bench.pool as pool:
        pass
    for order in orders(pool):
        with pytest.raises(PoolClosedError, match="pool pool is closed; make a new one"):
            await order()
    before = pool.settings
    pool.resume()
    pool.reset_breakers()
    await pool.drain()
    assert (await pool.close()).clean
    await settle()
    assert pool.settings is before
    assert pool.cancel() == pool.purge() == 0
    assert pool.numbers().workers == len(worker_tasks()) == 0
    assert bench.clock.sleepers == 0
    assert [reason.code for reason in pool.health().reasons] == [Code.CLOSED]
