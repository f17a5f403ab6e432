"""Submits from other threads: none lost or doubled, and the errors that a thread gets to see."""

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from mailrace.errors import MisuseError
from mailrace.pool import (
    JobCancelledError,
    JobState,
    Pool,
    PoolClosedError,
    PoolFullError,
    RetryPolicy,
    RetrySchedule,
)
from mailrace.pool.crossing import JobFuture
from tests.pool.plugged import plugged

LIMIT_S = 20.0
TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


async def until(condition: Callable[[], bool]) -> None:
    """Lets threads and the loop go on until something has come about."""
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "it never came about"
        await asyncio.sleep(0.001)


async def double(number: int) -> int:
    return 2 * number


async def fail(message: str) -> None:
    raise ZeroDivisionError(message)


@pytest.mark.parametrize("queue_size", [1, 50, 100_000])
async def test_no_submit_of_many_threads_is_lost_or_doubled(queue_size: int) -> None:
    ran: Counter[int] = Counter()
    threads, each = 8, 500

    async def handle(number: int) -> int:
        ran[number] += 1
        return -number

    def produce(first: int) -> list[JobFuture[int]]:
        return [pool.submit_threadsafe(handle, number) for number in range(first, first + each)]

    async with Pool(workers=4, queue_size=queue_size) as pool:
        made = await asyncio.gather(
            *(asyncio.to_thread(produce, each * thread) for thread in range(threads))
        )
        await pool.drain()
        ledger = pool.ledger()
    assert ran == Counter(range(threads * each))
    assert ledger.accepted == ledger.completed == threads * each
    for first, futures in enumerate(made):
        results = [future.result(0) for future in futures]
        assert results == [-number for number in range(each * first, each * (first + 1))]


async def test_threads_and_the_loop_share_one_queue_and_its_bound() -> None:
    ran: Counter[object] = Counter()

    async def handle(label: object) -> None:
        ran[label] += 1
        most.append(pool.ledger().queued)

    def produce() -> None:
        for number in range(300):
            pool.submit_threadsafe(handle, ("thread", number))

    most: list[int] = []
    async with Pool(workers=2, queue_size=5) as pool:
        producing = asyncio.ensure_future(asyncio.to_thread(produce))
        for number in range(300):
            await pool.submit(handle, ("loop", number))
        await producing
    assert set(ran.values()) == {1}
    assert len(ran) == 600
    assert max(most) <= 5


async def test_the_jobs_of_one_thread_are_worked_in_its_order() -> None:
    async with plugged() as bench:

        def produce() -> None:
            for number in range(50):
                bench.pool.submit_threadsafe(bench.note, number)

        await asyncio.to_thread(produce)
        await bench.unplug()
        assert bench.ran == list(range(50))


async def test_a_full_queue_that_refuses_refuses_a_thread() -> None:
    async with plugged(queue_size=1, overflow="refuse") as bench:
        await asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "queued")
        with pytest.raises(PoolFullError, match="the queue is full"):
            await asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "refused")
        assert bench.pool.ledger().refused == 1
        await bench.unplug()
        assert bench.ran == ["queued"]


async def test_a_thread_waits_for_room_and_no_longer_than_it_said() -> None:
    async with plugged(queue_size=1) as bench:
        queued = bench.pool.submit_nowait(bench.note, "queued")
        hasty = bench.pool.options(wait=5)
        late = asyncio.ensure_future(
            asyncio.to_thread(hasty.submit_threadsafe, bench.note, "too late")
        )
        await until(lambda: bench.pool.numbers().waiting_submits == 1)
        await bench.clock.advance(5)
        with pytest.raises(PoolFullError, match=r"no room within 5\.0 s"):
            await late
        patient = asyncio.ensure_future(
            asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "in time")
        )
        await until(lambda: bench.pool.numbers().waiting_submits == 1)
        queued.cancel()
        future = await patient
        await bench.unplug()
        assert future.result(0) == "in time"
        assert bench.ran == ["in time"]


async def test_a_thread_runs_the_job_of_a_caller_by_way_of_the_loop() -> None:
    async with plugged(queue_size=1, overflow="caller runs") as bench:
        bench.pool.submit_nowait(bench.note, "queued")
        future = await asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "at once")
        assert bench.ran == ["at once"]
        assert future.result(0) == "at once"


async def test_a_future_cancels_a_job_that_waits_and_one_that_runs() -> None:
    never = asyncio.Event()

    async with Pool(workers=1) as pool:
        running = await asyncio.to_thread(pool.submit_threadsafe, never.wait)
        queued = await asyncio.to_thread(pool.submit_threadsafe, never.wait)
        await until(lambda: running.job.state is JobState.RUNNING)
        for future in (queued, running):
            assert await asyncio.to_thread(future.cancel)
            with pytest.raises(JobCancelledError):
                await asyncio.to_thread(future.result, LIMIT_S)
            assert not future.cancel(), "it has ended"
        assert pool.ledger().cancelled == 2
        assert running.done()


async def test_cancelling_from_many_threads_ends_a_job_once() -> None:
    ended: list[object] = []
    async with plugged() as bench:
        futures = [
            await asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, number)
            for number in range(20)
        ]
        for future in futures:
            future.add_done_callback(ended.append)
        await asyncio.gather(
            *(asyncio.to_thread(future.cancel) for future in futures for _ in range(3))
        )
        await until(lambda: all(future.done() for future in futures))
        assert len(ended) == 20
        assert bench.pool.ledger().cancelled == 20
        assert bench.pool.ledger().balanced


async def test_a_result_that_is_not_there_in_time_is_a_timeout_and_the_job_goes_on() -> None:
    async with plugged() as bench:
        future = await asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "later")
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(future.result, 0.01)
        assert not future.done()
        await bench.unplug()
        assert await asyncio.to_thread(future.result, LIMIT_S) == "later"


async def test_a_thread_sees_what_the_function_raised() -> None:
    async with Pool(workers=1) as pool:
        future = await asyncio.to_thread(pool.submit_threadsafe, fail, "no")
        with pytest.raises(ZeroDivisionError, match="no"):
            await asyncio.to_thread(future.result, LIMIT_S)
        error = future.exception(0)
        assert isinstance(error, ZeroDivisionError)


async def test_a_future_is_settled_by_the_last_attempt_and_not_before() -> None:
    attempts: list[int] = []

    async def fail_twice() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ZeroDivisionError
        return "at last"

    async with plugged() as bench:
        again = bench.pool.options(retry=RetryPolicy(delays=RetrySchedule((1.0, 1.0))))
        future = await asyncio.to_thread(again.submit_threadsafe, fail_twice)
        await bench.unplug()
        assert not future.done()
        await bench.clock.advance(2)
        assert future.result(0) == "at last"


async def test_futures_go_with_what_concurrent_futures_offers() -> None:
    def work() -> list[int]:
        futures = [pool.submit_threadsafe(double, number) for number in range(20)]
        done = concurrent.futures.as_completed(futures, LIMIT_S)
        return sorted(future.result() for future in done)

    async with Pool(workers=3) as pool:
        assert await asyncio.to_thread(work) == [2 * number for number in range(20)]
        future = await asyncio.to_thread(pool.submit_threadsafe, double, 1)
        assert await asyncio.wrap_future(future) == 2


async def test_a_job_runs_in_the_context_of_the_thread_that_submitted_it() -> None:
    async def tenant() -> str:
        return TENANT.get()

    def submit() -> JobFuture[str]:
        TENANT.set("acme")
        return pool.submit_threadsafe(tenant)

    async with Pool(workers=1) as pool:
        future = await asyncio.to_thread(submit)
        assert await asyncio.wrap_future(future) == "acme"
        assert TENANT.get() == "nobody"


async def test_a_function_in_a_thread_of_a_full_pool_may_submit_and_wait_for_it() -> None:
    def outer(depth: int) -> int:
        if depth == 0:
            return 0
        return pool.submit_threadsafe(outer, depth - 1).result(LIMIT_S) + 1

    async with Pool(workers=1, queue_size=1) as pool:
        job = await pool.submit(outer, 5)
        assert await job.result(LIMIT_S) == 5
        assert pool.ledger().completed == 6


# Wrong use.


async def test_the_loops_own_thread_is_told_to_await_instead() -> None:
    async with Pool() as pool:
        with pytest.raises(MisuseError, match=r"block the event loop; use await pool\.submit"):
            pool.submit_threadsafe(double, 1)
        assert pool.ledger().accepted == 0


async def test_a_wrong_call_is_an_error_in_the_thread_that_makes_it() -> None:
    not_started = Pool()
    with pytest.raises(MisuseError, match="not started"):
        await asyncio.to_thread(not_started.submit_threadsafe, double, 1)
    async with Pool(queue_bytes=10) as pool:
        wrong: Any = 5
        with pytest.raises(MisuseError, match="function is 5"):
            await asyncio.to_thread(pool.submit_threadsafe, wrong)
        with pytest.raises(MisuseError, match="20 bytes"):
            await asyncio.to_thread(pool.submit_threadsafe, fail, "x" * 20)
        assert pool.ledger().accepted == 0


async def test_another_loop_in_another_thread_is_told_so() -> None:
    async def elsewhere() -> None:
        with pytest.raises(MisuseError, match="another event loop or thread"):
            await pool.submit(double, 1)
        with pytest.raises(MisuseError, match="another event loop or thread"):
            pool.submit_nowait(double, 1)

    async with Pool() as pool:
        await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(MisuseError, match="another event loop or thread"):
            await asyncio.to_thread(pool.submit_nowait, double, 1)


async def test_a_closed_pool_says_so_to_threads_and_to_those_who_wait() -> None:
    async with plugged(queue_size=1) as bench:
        bench.pool.submit_nowait(bench.note, "queued")
        waiting = asyncio.ensure_future(
            asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "waits")
        )
        await until(lambda: bench.pool.numbers().waiting_submits == 1)
        await bench.pool.close(0)
        with pytest.raises(PoolClosedError):
            await waiting
        with pytest.raises(PoolClosedError):
            await asyncio.to_thread(bench.pool.submit_threadsafe, bench.note, "after")


def test_a_closed_loop_is_an_error_and_no_endless_wait() -> None:
    async def main() -> Pool:
        async with Pool() as pool:
            return pool

    pool = asyncio.run(main())
    with pytest.raises(MisuseError, match="event loop is closed"):
        pool.submit_threadsafe(double, 1)


def test_a_loop_that_closes_before_it_has_heard_of_a_submit_frees_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(Pool(workers=1).start())
    errors: list[BaseException] = []
    posting = threading.Event()
    engine = pool.engine
    from_anywhere = engine.from_anywhere

    def post(callback: Callable[[], object]) -> None:
        from_anywhere(callback)  # which the loop, not running, never comes to
        posting.set()

    def submit() -> None:
        try:
            pool.submit_threadsafe(double, 1)
        except MisuseError as error:
            errors.append(error)

    loop.run_until_complete(pool.close(0))
    monkeypatch.setattr(engine, "from_anywhere", post)
    thread = threading.Thread(target=submit)
    thread.start()
    assert posting.wait(LIMIT_S)
    loop.close()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    (error,) = errors
    assert "event loop is closed" in str(error)


def test_a_thread_that_waits_for_room_is_freed_when_the_program_ends() -> None:
    errors: list[BaseException] = []

    def submit(pool: Pool) -> None:
        try:
            pool.submit_threadsafe(double, 1)
        except (MisuseError, PoolFullError) as error:
            errors.append(error)

    async def main() -> threading.Thread:
        pool = await Pool(workers=1, queue_size=1).start()  # and never closed
        for _ in range(2):
            await pool.submit(asyncio.Event().wait)
            await asyncio.sleep(0)
        thread = threading.Thread(target=submit, args=(pool,))
        thread.start()
        await until(lambda: pool.numbers().waiting_submits == 1)
        return thread

    thread = asyncio.run(main())
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert len(errors) == 1
