"""Handlers, plugins, callbacks and followers that do what they should not, and what a pool does."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NoReturn

import pytest

from mailrace.events import Events
from mailrace.pool import (
    Job,
    JobState,
    JobTimeoutError,
    MemorySettings,
    Plugin,
    PoolFullError,
    Reason,
    WorkerDied,
)
from tests.pool.gated import WAIT_S, Bench, adds_up, worker_tasks
from tests.support.clock import settle

AnyJob = Job[Any]
Proceed = Callable[[], Awaitable[object]]
MANY = 10_000


class ThrottledError(Exception):
    """Reads the time to wait from headers that are not there."""

    headers: ClassVar[dict[str, str]] = {}

    @property
    def retry_after(self) -> int:
        return int(self.headers["Retry-After"])


class Dawdler(Plugin):
    """Goes on with an attempt only when a test says so."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()

    async def around(self, job: AnyJob, proceed: Proceed) -> object:
        await self.may_go_on.wait()
        return await proceed()


class Impatient(Plugin):
    """Has a time limit of its own for the jobs called `slow`."""

    async def around(self, job: AnyJob, proceed: Proceed) -> object:
        async with asyncio.timeout(0.02 if job.name == "slow" else None):
            return await proceed()


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[Bench]:
    """A pool that has nothing left in it at the end, and comes to its end."""
    bench = Bench(**settings)
    async with asyncio.timeout(WAIT_S):
        try:
            async with bench.pool:
                yield bench
        finally:
            bench.freed.set()
    adds_up(bench.pool)
    assert bench.pool.ledger().unfinished == 0
    assert not worker_tasks()


async def hog(bench: Bench) -> None:
    """Keeps the loop busy: what is ready then comes before the timers that are due."""
    bench.clock._now_s += 10.0


def double(number: int) -> int:
    return 2 * number


def die() -> NoReturn:
    os._exit(3)


# What errors, plugins, callbacks and followers do.


async def test_an_error_whose_retry_after_raises_asks_for_nothing() -> None:
    async def throttled() -> None:
        bench.ran.append(1)
        raise ThrottledError

    async with opened() as bench:
        job = await bench.retried_after(1.0).submit(throttled)
        await bench.clock.advance(2.0)
        assert job.state is JobState.FAILED
        assert isinstance(job.error, ThrottledError)
        assert len(bench.ran) == 2


@pytest.mark.parametrize("way", ["timeout", "cancel"])
async def test_a_plugin_that_goes_on_after_the_end_calls_nothing(way: str) -> None:
    dawdler, calls = Dawdler(), list[object]()

    def delete(path: str = "/") -> None:
        calls.append(path)

    async with opened(plugins=[dawdler]) as bench:
        job = await bench.pool.options(timeout=1.0).submit(delete, "/tmp/x")
        await settle()
        if way == "cancel":
            job.cancel()
        await bench.clock.advance(2.0)
        assert job.state is (JobState.CANCELLED if way == "cancel" else JobState.FAILED)
        dawdler.may_go_on.set()
        await (await bench.pool.submit(double, 1)).result(5.0)  # the worker has come to the next
    assert calls == []


async def test_a_plugin_that_gives_a_thread_up_leaves_the_next_job_its_own() -> None:
    async with opened(plugins=[Impatient()]) as bench:
        slow = await bench.pool.options(name="slow").submit(bench.stuck)
        later = [await bench.pool.submit(double, number) for number in range(3)]
        assert isinstance((await slow.outcome()).error, TimeoutError)
        assert [(await job.outcome(5.0)).value for job in later] == [0, 2, 4]
        bench.freed.set()
        assert await (await bench.pool.submit(double, 3)).result(5.0) == 6


async def test_a_plugin_that_gives_a_process_up_leaves_the_next_job_its_own() -> None:
    async with opened(plugins=[Impatient()]) as bench:
        in_process = bench.pool.options(kind="process")
        slow = await bench.pool.options(kind="process", name="slow").submit(time.sleep, 2.0)
        later = await in_process.submit(double, 4)
        assert isinstance((await slow.outcome()).error, TimeoutError)
        assert (await later.outcome()).value == 8


async def test_a_callback_that_raises_a_cancel_keeps_no_other_from_being_called() -> None:
    withdrawn = asyncio.get_running_loop().create_future()
    withdrawn.cancel()
    told: list[AnyJob] = []
    async with opened() as bench:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        job = await bench.pool.submit(bench.held)
        await settle()
        job.add_done_callback(lambda _: withdrawn.result())
        job.add_done_callback(told.append)
        bench.gate.set()
        await settle()
        assert told == [job]
        assert bench.pool.numbers().deaths == 0


async def test_a_callback_that_cancels_another_job_at_the_close_leaves_one_outcome() -> None:
    told: list[JobState] = []
    async with opened() as bench:
        bench.pool.pause()
        first = await bench.pool.submit(bench.note)
        second = await bench.pool.submit(bench.note)
        first.add_done_callback(lambda _: second.cancel())
        second.add_done_callback(lambda job: told.append(job.state))
        report = await bench.pool.close()
    assert told == [JobState.CANCELLED]
    assert [job.id for job in report.unfinished] == [first.id]
    assert (report.ledger.cancelled, report.ledger.handed_back) == (1, 1)


async def test_a_follower_that_raises_when_a_process_dies_keeps_nobody_waiting() -> None:
    def fail(_: WorkerDied) -> None:
        raise LookupError("a follower")

    events = Events()
    events.follow(WorkerDied, fail)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with opened(events=events) as bench:
        job: AnyJob = await bench.pool.options(kind="process").submit(die)
        assert (await job.outcome(5.0)).reason is Reason.WORKER_DIED
        assert await (await bench.pool.submit(bench.note, "next")).result(5.0) == "next"


async def test_a_look_at_the_memory_that_fails_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int | None] = [0, 0, None]

    def read() -> int:
        used_bytes = looks.pop(0) if looks else 1000
        if used_bytes is None:
            raise OSError("too many open files")
        return used_bytes

    monkeypatch.setattr("mailrace.pool.watch.read_rss_bytes", read)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    limit = MemorySettings(process_max_bytes=1000, share_of_cgroup=None)
    async with opened(memory=limit) as bench:
        await bench.clock.advance(3.0)
        assert looks == []
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note)


# Jobs that wait for their own pool.


async def test_a_coroutine_that_was_abandoned_lends_its_place_while_it_waits() -> None:
    async def outer() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await bench.gate.wait()
        await bench.clock.sleep_s(1.0)  # past its grace
        await (await bench.pool.submit(bench.note, "inner"))
        bench.ran.append("outer")

    async with opened(cancel_grace=0.5) as bench:
        job = await bench.pool.options(timeout=1.0).submit(outer)
        await bench.clock.advance(5.0)
        assert isinstance(job.error, JobTimeoutError)
        assert bench.ran == ["inner", "outer"]


async def test_a_thread_that_was_abandoned_lends_its_place_while_it_waits() -> None:
    def outer() -> None:
        bench.freed.wait(WAIT_S)
        try:
            bench.ran.append(bench.pool.submit_threadsafe(double, 2).result(1.0))
        except TimeoutError:
            bench.ran.append("a deadlock")
        loop.call_soon_threadsafe(bench.gate.set)

    loop = asyncio.get_running_loop()
    async with opened() as bench:
        job = await bench.pool.options(timeout=1.0).submit(outer)
        await bench.clock.advance(2.0)
        assert isinstance(job.error, JobTimeoutError)
        bench.freed.set()
        await bench.gate.wait()
        await (await bench.pool.submit(double, 1)).result(5.0)  # the worker is free again
    assert bench.ran == [4]


async def test_a_task_of_a_job_that_gives_up_takes_no_other_task_with_it() -> None:
    async def parent() -> str:
        waits = await bench.pool.submit(first_gate.wait)
        await bench.pool.submit(bench.held)
        never = await bench.pool.submit(bench.held)
        first = asyncio.create_task(waits.result())
        await settle()
        first_gate.set()  # it waits for its place from now on, which `held` has
        await settle()
        second = asyncio.create_task(never.result())
        await settle()
        for _ in range(2):  # out of the wait for the job, and out of the wait for the place
            second.cancel()
            await settle()
        assert second.cancelled()
        assert not first.done()
        bench.gate.set()
        await first
        return "fine"

    first_gate = asyncio.Event()
    async with opened() as bench:
        job = await bench.pool.submit(parent)
        assert await job.result(5.0) == "fine"


async def test_a_thread_asks_a_job_of_its_own_pool_for_its_error() -> None:
    def outer() -> BaseException | None:
        return bench.pool.submit_threadsafe(bench.boom).exception(1.0)

    async with opened() as bench:
        error = await (await bench.pool.submit(outer))
    assert type(error).__name__ == "BoomError"


async def test_a_thread_may_ask_for_a_result_without_waiting() -> None:
    def outer() -> str:
        try:
            return str(bench.pool.submit_threadsafe(bench.stuck).result(0))
        except BaseException as error:  # noqa: BLE001 - which one it is, is the question
            return type(error).__name__

    async with opened(workers=2) as bench:
        assert await (await bench.pool.submit(outer)) == "TimeoutError"
        bench.freed.set()


async def test_waiting_for_a_result_within_a_time_leaves_nothing_behind() -> None:
    async with opened() as bench:
        job = await bench.pool.submit(bench.held)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await job.result(timeout=0.001)
        assert not job._waiters
        bench.gate.set()


# Loops that are kept busy, and ends that come in the middle.


@pytest.mark.parametrize("option", ["expires", "deadline"])
@pytest.mark.parametrize("settings", [{}, {"rate": "1000/s"}], ids=["free", "gated"])
async def test_what_expired_while_the_loop_was_busy_does_not_run(
    settings: dict[str, Any], option: str
) -> None:
    span: dict[str, Any] = {option: 1.0}
    async with opened(**settings) as bench:
        bench.pool.pause()
        await bench.pool.submit(hog, bench)
        jobs = [await bench.pool.options(**span).submit(bench.note, "late") for _ in range(3)]
        await bench.pool.submit(bench.note, "on time")
        bench.pool.resume()
        await settle()
        assert {job.state for job in jobs} == {JobState.EXPIRED}
        adds_up(bench.pool)
    assert bench.ran == ["on time"]


@pytest.mark.parametrize("settings", [{}, {"rate": "1000/s"}], ids=["free", "gated"])
async def test_any_number_of_jobs_expires_in_one_go(settings: dict[str, Any]) -> None:
    async with opened(queue_size=2 * MANY, **settings) as bench:
        bench.pool.pause()
        bench.pool.submit_nowait(hog, bench)
        short = bench.pool.options(expires=1.0)
        for _ in range(MANY):
            short.submit_nowait(bench.note)
        bench.pool.resume()
        await settle()
        assert bench.pool.ledger().expired == MANY
        adds_up(bench.pool)
        assert bench.pool.numbers().deaths == 0
    assert bench.ran == []


async def test_a_block_that_is_cancelled_at_its_end_leaves_nothing_running() -> None:
    async def body() -> None:
        async with bench.pool:
            await bench.pool.submit(bench.held)
            await bench.pool.submit(bench.note, "never")

    bench = Bench()
    task = asyncio.create_task(body())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not worker_tasks()
    assert bench.pool.ledger().unfinished == 0
    adds_up(bench.pool)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
async def test_a_loop_with_eager_tasks_does_for_a_pool() -> None:
    asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
    async with opened(workers=2) as bench:
        jobs = [await bench.pool.submit(bench.note, number) for number in range(5)]
        assert [await job.result(5.0) for job in jobs] == [0, 1, 2, 3, 4]
        assert bench.pool.numbers().deaths == 0


# Submitters that wait.


async def test_a_submitter_of_low_priority_has_its_turn_in_the_end() -> None:
    async def feed() -> None:
        while True:
            await bench.pool.options(priority="high").submit(bench.clock.sleep_s, 0.1)

    async with opened(queue_size=1, ageing=1.0) as bench:
        feeders = [asyncio.create_task(feed()) for _ in range(3)]
        await bench.clock.advance(1.0)
        low = asyncio.create_task(bench.pool.options(priority="low").submit(bench.note))
        await bench.clock.advance(20.0)
        assert low.done()
        for feeder in feeders:
            feeder.cancel()
        await asyncio.gather(*feeders, return_exceptions=True)
        await bench.clock.advance(20.0)


async def test_a_submitter_that_runs_its_job_itself_waits_for_the_end_of_a_pause() -> None:
    async with opened(queue_size=1, overflow="caller runs", rate="1/s") as bench:
        await bench.pool.submit(bench.note, 1)
        await settle()
        await bench.pool.submit(bench.note, 2)
        submit = asyncio.create_task(bench.pool.submit(bench.note, 3))
        await settle()
        bench.pool.pause()
        await bench.clock.advance(100.0)
        assert bench.ran == [1]
        bench.pool.resume()
        await bench.clock.advance(3.0)
        assert submit.done()
    assert sorted(map(str, bench.ran)) == ["1", "2", "3"]
