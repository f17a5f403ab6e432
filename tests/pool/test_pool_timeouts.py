"""Time limits and cancels that really end jobs: on the loop, in threads and in processes."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.events import Events
from mailrace.pool import (
    Job,
    JobCancelledError,
    JobExpiredError,
    JobState,
    JobTimeoutError,
    Pool,
    Reason,
    RetryPolicy,
    RetrySchedule,
    WorkerDied,
    WorkerDiedError,
    current_job,
)
from mailrace.pool.health import Code
from mailrace.pool.processes import WorkerProcess
from tests.support.clock import VirtualClock, settle

WAIT_S = 60.0
TWICE = RetryPolicy(delays=RetrySchedule((0.0,)))


class Bench:
    """A pool of one worker on a virtual clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.pool = Pool(clock=self.clock, **{"workers": 1, "cancel_grace": 2.0, **settings})
        self.gate = asyncio.Event()

    async def sleep(self, span_s: float) -> float:
        await self.clock.sleep_s(span_s)
        return self.clock.monotonic_s()

    async def stubborn(self) -> str:
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()
        return "late"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with bench.pool:
        yield bench


def codes(pool: Pool) -> list[Code]:
    return [reason.code for reason in pool.health().reasons]


async def until(condition: Callable[[], bool]) -> None:
    """Real threads and processes take their time."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def ended(job: Job[Any]) -> Job[Any]:
    await job.outcome(WAIT_S)
    return job


async def test_an_attempt_that_takes_too_long_is_cancelled_at_its_time(bench: Bench) -> None:
    job = await bench.pool.options(timeout=3.0).submit(bench.sleep, 10.0)
    await bench.clock.advance(2.9)
    assert not job.done()
    await bench.clock.advance(0.1)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.TIMEOUT)
    with pytest.raises(JobTimeoutError, match="took longer than its timeout"):
        await job
    assert (await job.outcome()).ran_s == pytest.approx(3.0)
    assert bench.pool.numbers().timeouts == 1


async def test_a_timeout_begins_with_the_function_and_not_in_the_queue(bench: Bench) -> None:
    first = await bench.pool.submit(bench.sleep, 10.0)
    second = await bench.pool.options(timeout=3.0).submit(bench.sleep, 2.0)
    await bench.clock.advance(12.0)
    assert await first == 10.0
    assert await second == 12.0


async def test_the_timeout_of_one_job_is_nothing_to_the_next(bench: Bench) -> None:
    limited = bench.pool.options(timeout=3.0)
    assert not (await limited.submit(bench.sleep, 1.0)).done()
    free = await bench.pool.submit(bench.sleep, 50.0)
    later = await limited.submit(bench.sleep, 2.9)
    late = await limited.submit(bench.sleep, 3.1)
    await bench.clock.advance(60.0)
    assert await free == 51.0
    assert await later == pytest.approx(53.9)
    with pytest.raises(JobTimeoutError):
        await late


@given(
    takes=st.lists(st.sampled_from((0.5, 1.0, 1.5, 2.0, 3.0)), min_size=1, max_size=8),
    limits=st.lists(st.sampled_from((None, 0.7, 1.2, 2.5)), min_size=8, max_size=8),
)
def test_of_many_jobs_exactly_those_fail_that_take_longer_than_they_may(
    takes: list[float], limits: list[float | None]
) -> None:
    async def run() -> None:
        bench = Bench()
        await bench.pool.start()
        jobs = [
            await bench.pool.options(timeout=limit).submit(bench.sleep, span_s)
            for span_s, limit in zip(takes, limits, strict=False)
        ]
        await bench.clock.advance(100.0)
        for job, span_s, limit in zip(jobs, takes, limits, strict=False):
            in_time = limit is None or span_s < limit
            assert job.state is (JobState.COMPLETED if in_time else JobState.FAILED)
        await bench.pool.close()

    asyncio.run(run())


async def test_a_deadline_covers_the_wait_and_all_attempts(bench: Bench) -> None:
    policy = RetryPolicy(delays=RetrySchedule((1.0, 1.0, 1.0)))
    job = await bench.pool.options(timeout=2.0, deadline=7.0, retry=policy).submit(
        bench.sleep, 100.0
    )
    await bench.clock.advance(6.9)
    assert not job.done()
    assert job.attempts == 3
    await bench.clock.advance(0.1)
    assert (job.state, job.reason, job.attempts) == (JobState.FAILED, Reason.DEADLINE, 3)
    with pytest.raises(JobTimeoutError, match="deadline"):
        await job


async def test_no_retry_is_waited_for_that_would_begin_after_the_deadline(bench: Bench) -> None:
    policy = RetryPolicy(delays=RetrySchedule((10.0,)))
    job = await bench.pool.options(timeout=1.0, deadline=5.0, retry=policy).submit(
        bench.sleep, 100.0
    )
    await bench.clock.advance(1.0)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.DEADLINE)


async def test_a_job_that_waits_too_long_expires_and_frees_its_place(bench: Bench) -> None:
    bench.pool.reconfigure(queue_size=1)
    busy = await bench.pool.submit(bench.sleep, 10.0)
    await settle()
    expiring = await bench.pool.options(expires=3.0).submit(bench.sleep, 1.0)
    waiting = asyncio.ensure_future(bench.pool.submit(bench.sleep, 1.0))
    await bench.clock.advance(3.0)
    with pytest.raises(JobExpiredError):
        await expiring
    assert waiting.done()
    await bench.clock.advance(10.0)
    assert await busy == 10.0
    assert (expiring.state, expiring.attempts) == (JobState.EXPIRED, 0)


async def test_a_job_that_has_begun_expires_no_more(bench: Bench) -> None:
    job = await bench.pool.options(expires=3.0).submit(bench.sleep, 10.0)
    await bench.clock.advance(10.0)
    assert await job == 10.0


@pytest.mark.parametrize("result_first", [True, False])
async def test_a_result_in_the_turn_of_the_timeout_wins(bench: Bench, result_first: bool) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        return await answer

    job = await bench.pool.options(timeout=3.0).submit(ask)
    await settle()
    if result_first:
        answer.set_result("here")
        bench.clock.move_to(3.0)
    else:
        bench.clock.move_to(3.0)
        asyncio.get_running_loop().call_soon(answer.set_result, "here")
    await settle()
    if result_first:
        assert await job == "here"
    else:
        assert job.reason is Reason.TIMEOUT
    assert await (await bench.pool.submit(asyncio.sleep, 0, "next")) == "next"


async def test_a_limit_inside_a_job_that_was_met_in_the_last_moment_is_forgotten(
    bench: Bench,
) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    limits = []

    async def ask() -> float:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await answer
        return await bench.sleep(5.0)

    job = await bench.pool.submit(ask)
    await settle()
    limits[0].reschedule(0.0)
    answer.set_result("here")
    await settle()
    await bench.clock.advance(5.0)
    assert await job == 5.0


async def test_a_coroutine_that_swallows_its_cancel_is_left_behind_and_keeps_its_worker(
    bench: Bench,
) -> None:
    mule = await bench.pool.options(timeout=3.0, retry=TWICE).submit(bench.stubborn)
    other = await bench.pool.submit(bench.sleep, 1.0)
    await bench.clock.advance(4.9)
    assert not mule.done()
    await bench.clock.advance(0.1)
    assert (mule.state, mule.attempts) == (JobState.FAILED, 1)
    with pytest.raises(JobTimeoutError, match="still runs"):
        await mule
    assert codes(bench.pool) == [Code.ABANDONED]
    assert bench.pool.numbers().abandoned == 1
    assert bench.pool.ledger().running == 0
    await bench.clock.advance(20.0)
    assert not other.done()
    bench.gate.set()
    await settle()
    await bench.clock.advance(1.0)
    assert other.done()
    assert codes(bench.pool) == []
    assert bench.pool.numbers().late == 1


async def test_a_coroutine_that_answers_its_cancel_with_a_result_has_completed(
    bench: Bench,
) -> None:
    async def answers() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await bench.clock.sleep_s(100.0)
        return "rescued"

    job = await bench.pool.options(timeout=3.0).submit(answers)
    await bench.clock.advance(3.0)
    assert await job == "rescued"
    assert await (await bench.pool.submit(asyncio.sleep, 0, "next")) == "next"


async def test_a_job_that_cancels_itself_and_does_not_wait_harms_nobody(bench: Bench) -> None:
    async def cancels_itself() -> bool:
        return current_job().cancel()

    first = await bench.pool.submit(cancels_itself)
    second = await bench.pool.submit(asyncio.sleep, 0, "next")
    assert await first is True
    assert await second == "next"


async def test_cancelled_by_whom_is_told_apart(bench: Bench) -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    by_itself = await ended(await bench.pool.submit(gives_up))
    running = await bench.pool.submit(bench.sleep, 10.0)
    waiting = await bench.pool.submit(bench.sleep, 10.0)
    await settle()
    assert running.cancel()
    assert waiting.cancel()
    assert not waiting.cancel()
    await settle()
    assert (by_itself.state, by_itself.reason) == (JobState.CANCELLED, Reason.HANDLER)
    for job in (running, waiting):
        assert (job.state, job.reason) == (JobState.CANCELLED, Reason.REQUESTED)
        with pytest.raises(JobCancelledError):
            await job
    assert bench.pool.ledger().failed == 0


# Threads.


class Stuck:
    """A function in a thread that ends when it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.freed = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.began.set()
        self.freed.wait(WAIT_S)
        return "late"


async def test_a_thread_is_left_behind_at_its_time_and_its_worker_busy_until_it_returns() -> None:
    bench = Bench()
    stuck = Stuck()
    async with bench.pool as pool:
        job = await pool.options(timeout=3.0, retry=TWICE).submit(stuck)
        other = await pool.submit(time.monotonic)
        await asyncio.to_thread(stuck.began.wait, WAIT_S)
        await bench.clock.advance(3.0)
        assert (job.state, job.reason, job.attempts) == (JobState.FAILED, Reason.TIMEOUT, 1)
        assert codes(pool) == [Code.ABANDONED]
        assert (pool.numbers().active, pool.numbers().abandoned) == (1, 1)
        await bench.clock.advance(10.0)
        assert not other.done()
        stuck.freed.set()
        await other
        assert codes(pool) == []
        assert pool.numbers().late == 1
        assert job.state is JobState.FAILED
    assert stuck.calls == 1


async def test_no_job_starts_while_too_many_are_left_behind() -> None:
    bench = Bench(workers=3, abandoned_max=1)
    stuck = Stuck()
    async with bench.pool as pool:
        job = await pool.options(timeout=3.0).submit(stuck)
        await asyncio.to_thread(stuck.began.wait, WAIT_S)
        await bench.clock.advance(3.0)
        assert job.done()
        other = await pool.submit(asyncio.sleep, 0, "other")
        await settle()
        assert not other.done()
        stuck.freed.set()
        assert await other == "other"


async def test_a_thread_may_look_whether_anybody_still_waits() -> None:
    bench = Bench()
    raised = threading.Event()
    began = threading.Event()

    def looks() -> None:
        job = current_job()
        began.set()
        while True:
            try:
                job.check_cancelled()
            except JobCancelledError:
                raised.set()
                raise
            time.sleep(0.001)

    async with bench.pool as pool:
        job = await pool.submit(looks)
        await asyncio.to_thread(began.wait, WAIT_S)
        assert job.cancel()
        assert (job.state, job.reason) == (JobState.CANCELLED, Reason.REQUESTED)
        assert await asyncio.to_thread(raised.wait, WAIT_S)


# Processes.


def own_pid() -> int:
    return os.getpid()


def spin(path: str) -> None:
    """Takes the processor to itself."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        pass


def spin_once(path: str) -> str:
    if not Path(path).exists():
        spin(path)
    return "done"


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_that_takes_too_long_is_killed_and_replaced(tmp_path: Path) -> None:
    began = tmp_path / "began"
    async with Pool(workers=1) as pool:
        cpu = pool.options(kind="process")
        first_pid = await (await cpu.submit(own_pid))
        began_s = time.monotonic()
        job = await cpu.submit(spin, str(began))
        await until(lambda: bool(pids(began)))
        assert job.cancel()
        await ended(job)
        assert job.state is JobState.CANCELLED
        assert time.monotonic() - began_s < WAIT_S / 2
        assert not is_alive(first_pid)
        pid = await (await cpu.submit(own_pid))
        assert pid != first_pid
    assert not is_alive(pid)


async def test_a_process_job_that_timed_out_has_its_next_attempt(tmp_path: Path) -> None:
    began = tmp_path / "began"
    async with Pool(workers=1) as pool:
        often = RetryPolicy(delays=RetrySchedule((0.0,) * 10))
        cpu = pool.options(kind="process", timeout=2.0, retry=often)
        job = await cpu.submit(spin_once, str(began))
        assert await job == "done"
        assert job.attempts == pool.numbers().timeouts + 1 > 1
        assert pool.numbers().deaths == 0


async def test_a_kill_that_comes_before_the_call_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked, let_go = threading.Event(), threading.Event()
    call = WorkerProcess.call

    def late(process: WorkerProcess, *arguments: Any) -> object:
        asked.set()
        let_go.wait(WAIT_S)
        return call(process, *arguments)

    monkeypatch.setattr(WorkerProcess, "call", late)
    async with Pool(workers=1, cancel_grace=WAIT_S) as pool:
        job = await pool.options(kind="process").submit(spin, str(tmp_path / "began"))
        await asyncio.to_thread(asked.wait, WAIT_S)
        began_s = time.monotonic()
        assert job.cancel()
        await asyncio.sleep(0.05)
        assert not job.done()
        let_go.set()
        await ended(job)
        assert job.state is JobState.CANCELLED
        assert time.monotonic() - began_s < WAIT_S / 2


async def test_a_process_that_is_killed_from_outside_costs_only_its_own_job(
    tmp_path: Path,
) -> None:
    began = tmp_path / "began"
    events, died = Events(), list[WorkerDied]()
    events.follow(WorkerDied, died.append)
    async with Pool(workers=2, events=events) as pool:
        cpu = pool.options(kind="process")
        job = await cpu.submit(spin, str(began))
        await until(lambda: bool(pids(began)))
        other = await cpu.submit(own_pid)
        other_pid = await other
        os.kill(pids(began)[0], signal.SIGKILL)
        await ended(job)
        assert (job.state, job.reason) == (JobState.FAILED, Reason.WORKER_DIED)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            await job
        assert is_alive(other_pid)
        assert codes(pool) == [Code.WORKER_DIED]
        assert [event.worker for event in died] == [(await job.outcome()).worker]
        assert len(pool.engine.crew) == 2


async def test_a_job_whose_process_was_killed_is_retried_if_it_may_be(tmp_path: Path) -> None:
    began = tmp_path / "began"
    async with Pool(workers=1) as pool:
        job = await pool.options(kind="process", retry=TWICE).submit(spin_once, str(began))
        await until(lambda: bool(pids(began)))
        os.kill(pids(began)[0], signal.SIGKILL)
        assert await job == "done"
        assert job.attempts == 2


async def test_closing_kills_processes_that_are_not_done(tmp_path: Path) -> None:
    began = tmp_path / "began"
    pool = await Pool(workers=1).start()
    job = await pool.options(kind="process").submit(spin, str(began))
    await until(lambda: bool(pids(began)))
    report = await pool.close(0)
    assert job.state is JobState.HANDED_BACK
    assert [unfinished.function for unfinished in report.unfinished] == [spin]
    assert report.abandoned == ()
    assert not is_alive(pids(began)[0])


async def test_what_cannot_be_handed_to_a_process_fails_with_advice() -> None:
    async with Pool(workers=1) as pool:
        job = await pool.options(kind="process").submit(lambda: 1)
        with pytest.raises(Exception, match="module-level function"):
            await job


async def test_an_expired_job_does_not_delay_a_drain(bench: Bench) -> None:
    """Told once, its place given back, and nobody waits for it."""
    busy = await bench.pool.submit(bench.sleep, 10.0)
    await settle()
    view = bench.pool.options(expires=3.0)
    told: list[Job[float]] = []
    for _ in range(100):
        (await view.submit(bench.sleep, 100.0)).add_done_callback(told.append)
    draining = asyncio.ensure_future(bench.pool.drain())
    await bench.clock.advance(9.9)
    assert (len(told), bench.pool.ledger().expired, draining.done()) == (100, 100, False)
    await bench.clock.advance(0.1)
    assert draining.done()
    assert await busy == bench.clock.monotonic_s() == 10.0
    assert bench.pool.engine.intake.room == bench.pool.settings.queue_size


async def test_a_paused_pool_is_drained_when_its_jobs_have_expired(bench: Bench) -> None:
    bench.pool.pause()
    job = await bench.pool.options(expires=3.0).submit(bench.sleep, 100.0)
    draining = asyncio.ensure_future(bench.pool.drain())
    await bench.clock.advance(2.9)
    assert not draining.done()
    await bench.clock.advance(0.1)
    assert draining.done()
    assert job.state is JobState.EXPIRED
