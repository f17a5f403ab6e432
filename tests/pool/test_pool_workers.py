"""The workers of a pool: how many there are, why, and what becomes of one that dies."""

import asyncio
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool import (
    BreakerSettings,
    JobState,
    Pool,
    RateLimit,
    Reason,
    RetryPolicy,
    RetrySchedule,
    Scaled,
    WorkerDied,
    WorkerDiedError,
)
from mailrace.pool.health import Code
from mailrace.pool.scaling import ScaleReason
from tests.support.clock import VirtualClock, settle

WAIT_S = 60.0
TASK = "pool worker "
TWICE = RetryPolicy(delays=RetrySchedule((0.0,)))
GROWING: dict[str, Any] = {
    "workers_min": 1,
    "workers_max": 4,
    "queue_size": 1000,
    "scale_up_at": 5,
    "scale_up_wait": 2.0,
    "scale_up_cool_down": 10.0,
    "scale_down_cool_down": 3.0,
    "scale_down_at": 1,
    "idle_timeout": 20.0,
}


class Bench:
    """A pool on a virtual clock, and what happens in it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.events = Events()
        self.scaled: list[Scaled] = []
        self.died: list[WorkerDied] = []
        self.events.follow(Scaled, self.scaled.append)
        self.events.follow(WorkerDied, self.died.append)
        self.pool = Pool(clock=self.clock, events=self.events, **settings)
        self.gate = asyncio.Event()
        self.inside = self.most_inside = 0

    async def held(self) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1

    async def fill(self, jobs: int) -> None:
        for _ in range(jobs):
            await self.pool.submit(self.held)
        await settle()

    @property
    def workers(self) -> int:
        """As reported, after a look whether that is true."""
        count = len(worker_tasks())
        assert self.pool.numbers().workers == count
        return count


def worker_tasks() -> list["asyncio.Task[Any]"]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(TASK)]


def pool_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pool thread")]


async def until(condition: Callable[[], bool]) -> None:
    """Real threads and processes take their time."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.002)


# How many.


async def test_scaling_by_hand_changes_the_number_at_once_and_within_the_bounds() -> None:
    bench = Bench(workers_min=1, workers_max=5)
    async with bench.pool as pool:
        assert bench.workers == 1
        assert pool.scale(+3) == 4
        assert bench.workers == 4
        assert pool.scale(+3) == 5
        assert pool.scale(-1) == 4
        assert pool.scale(-1) == 3
        await settle()
        assert bench.workers == 3
        assert pool.scale(-100) == 1
        await settle()
        assert bench.workers == 1
        numbers = pool.numbers()
        assert (numbers.scale_ups, numbers.scale_downs) == (2, 3)
        assert numbers.last_scale_up_unix_s == bench.clock.unix_s()


async def test_busy_workers_that_are_too_many_leave_after_their_job() -> None:
    bench = Bench(workers_min=1, workers_max=5)
    async with bench.pool as pool:
        pool.scale(+4)
        await bench.fill(20)
        assert (bench.workers, bench.inside) == (5, 5)
        pool.scale(-3)
        await settle()
        assert (bench.workers, bench.inside) == (5, 5)
        bench.gate.set()
        await pool.drain()
        await settle()
        assert bench.workers == 2
        assert not pool.engine.attention


async def test_other_bounds_hold_at_once() -> None:
    bench = Bench(workers=2)
    async with bench.pool as pool:
        pool.resize(4, 6)
        assert bench.workers == 4
        pool.resize(1, 3)
        await settle()
        assert bench.workers == 3
        with pytest.raises(MisuseError, match="workers_min is 5 and workers_max only 2"):
            pool.resize(5, 2)
        with pytest.raises(MisuseError, match="workers_min is 0"):
            pool.resize(0, 2)
        assert bench.workers == 3


async def test_many_waiting_jobs_bring_workers_one_step_after_the_other() -> None:
    bench = Bench(**GROWING)
    async with bench.pool as pool:
        await bench.fill(1)
        await bench.fill(4)
        assert bench.workers == 1
        await bench.fill(1)
        assert (bench.workers, bench.inside) == (2, 2)
        await bench.fill(50)
        assert bench.workers == 2
        await bench.clock.advance(9.9)
        assert bench.workers == 2
        await bench.clock.advance(0.1)
        assert (bench.workers, bench.inside) == (4, 4)
        await bench.clock.advance(100.0)
        assert bench.workers == 4
        assert [(event.before, event.workers) for event in bench.scaled] == [(1, 2), (2, 4)]
        bench.gate.set()
        await pool.drain()


async def test_one_job_that_waits_long_brings_a_worker() -> None:
    bench = Bench(**GROWING)
    async with bench.pool:
        await bench.fill(2)
        await bench.clock.advance(1.9)
        assert bench.workers == 1
        await bench.clock.advance(0.2)
        assert (bench.workers, bench.inside) == (2, 2)
        bench.gate.set()


@pytest.mark.parametrize(
    "held_by",
    [
        {"rate": RateLimit.of("1/h")},
        {"breaker": BreakerSettings(failures=1, break_s=1000.0, break_max_s=1000.0)},
        {},
    ],
    ids=["limit", "breaker", "pause"],
)
async def test_nobody_comes_while_something_else_holds_jobs_back(held_by: dict[str, Any]) -> None:
    bench = Bench(**GROWING, **held_by)

    async def fails() -> None:
        raise OSError

    async with bench.pool as pool:
        await pool.submit(fails)
        await settle()
        if not held_by:
            pool.pause()
        await bench.fill(100)
        await bench.clock.advance(500.0)
        assert bench.workers == 1
        assert bench.inside == 0
        bench.gate.set()
        await pool.close(0)


async def test_when_a_pause_is_over_workers_come_for_what_has_gathered() -> None:
    bench = Bench(**GROWING)
    async with bench.pool as pool:
        pool.pause()
        await bench.fill(20)
        assert bench.workers == 1
        pool.resume()
        await settle()
        assert bench.workers == 2
        await bench.clock.advance(10.0)
        assert bench.workers == 4
        bench.gate.set()


async def test_retries_that_come_back_all_at_once_bring_workers() -> None:
    bench = Bench(**GROWING)
    failing = asyncio.Event()

    async def fails_once() -> None:
        if not failing.is_set():
            raise OSError
        await bench.held()

    async with bench.pool as pool:
        patient = pool.options(retry=RetryPolicy(delays=RetrySchedule((50.0,))))
        for _ in range(20):
            await patient.submit(fails_once)
            await settle()
        assert pool.ledger().delayed == 20
        assert bench.workers == 1
        failing.set()
        await bench.clock.advance(50.0)
        assert bench.workers == 2
        bench.gate.set()


async def test_a_rate_limit_that_lets_one_by_one_through_brings_nobody() -> None:
    bench = Bench(**GROWING, rate=RateLimit.of("1/s"))

    async def short() -> None:
        await asyncio.sleep(0)

    async with bench.pool as pool:
        for _ in range(60):
            await pool.submit(short)
            await settle()
        await bench.clock.advance(50.0)
        assert pool.ledger().completed >= 50
        assert bench.workers == 1
        await pool.close(0)


async def test_idle_workers_leave_after_their_time_and_the_last_used_stays() -> None:
    bench = Bench(**GROWING)
    async with bench.pool as pool:
        pool.scale(+3)
        await bench.fill(4)
        bench.gate.set()
        await pool.drain()
        await settle()
        used = set()
        for _ in range(3):
            await bench.clock.advance(9.0)
            job = await pool.submit(asyncio.sleep, 0)
            used.add((await job.outcome()).worker)
        assert len(used) == 1
        assert bench.workers == 1
        await bench.clock.advance(1000.0)
        assert bench.workers == 1
        assert {worker.number for worker in pool.engine.crew} == used
        assert bench.scaled[-1].workers == 1


async def test_to_the_most_and_back_the_number_told_is_the_number_there_is() -> None:
    bench = Bench(**{**GROWING, "workers_max": 40, "scale_up_cool_down": 1.0})
    seen = set()
    async with bench.pool as pool:
        await bench.fill(500)
        for _ in range(20):
            seen.add(bench.workers)
            await bench.clock.advance(1.0)
        assert bench.workers == bench.most_inside == 40
        bench.gate.set()
        await pool.drain()
        for _ in range(100):
            seen.add(bench.workers)
            await bench.clock.advance(1.0)
        assert bench.workers == 1
    assert len(seen) > 4


async def test_workers_come_within_a_moment_and_go_soon_after_their_time() -> None:
    events, times_s = Events(), list[float]()
    events.follow(Scaled, lambda _: times_s.append(time.monotonic()))
    pool = Pool(
        workers_min=1, workers_max=2, scale_up_at=1, scale_down_at=1, events=events,
        idle_timeout=0.2, scale_up_cool_down=0.01, scale_down_cool_down=0.01,
    )  # fmt: skip
    gate, began_s = asyncio.Event(), list[float]()

    async def held() -> None:
        began_s.append(time.monotonic())
        await gate.wait()

    async with pool:
        await pool.submit(held)
        await until(lambda: len(began_s) == 1)
        asked_s = time.monotonic()
        await pool.submit(held)
        await until(lambda: len(began_s) == 2)
        assert began_s[1] - asked_s < 1.0
        gate.set()
        await pool.drain()
        idle_s = time.monotonic()
        await until(lambda: len(worker_tasks()) == 1)
        assert 0.1 < time.monotonic() - idle_s < 5.0


# One at a time.


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_one_worker_does_one_job_at_a_time(kind: str) -> None:
    inside = most = 0

    async def on_loop() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    def in_thread() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside -= 1

    async with Pool(workers=1) as pool:
        jobs = [await pool.submit(on_loop if kind == "loop" else in_thread) for _ in range(50)]
        outcomes = [await job.outcome() for job in jobs]
    assert most == 1
    assert Counter(outcome.worker for outcome in outcomes) == {1: 50}
    assert [outcome.state for outcome in outcomes] == [JobState.COMPLETED] * 50


async def test_workers_do_no_more_jobs_at_a_time_than_they_are() -> None:
    bench = Bench(workers=7)
    async with bench.pool:
        await bench.fill(100)
        assert bench.inside == 7
        bench.gate.set()
    assert bench.most_inside == 7


async def test_outcomes_tell_which_worker_had_the_job() -> None:
    bench = Bench(workers=3)
    async with bench.pool as pool:
        jobs = [await pool.submit(bench.held) for _ in range(3)]
        withdrawn = await pool.submit(bench.held)
        await settle()
        withdrawn.cancel()
        bench.gate.set()
        outcomes = [await job.outcome() for job in jobs]
        assert {outcome.worker for outcome in outcomes} == {1, 2, 3}
        assert (await withdrawn.outcome()).worker is None


# New ones in their place.


async def test_workers_are_replaced_by_new_ones_after_their_job() -> None:
    bench = Bench(workers=3)
    async with bench.pool as pool:
        await bench.fill(2)
        pool.restart_workers()
        await settle()
        assert bench.workers == 3
        assert sum(worker.number <= 3 for worker in pool.engine.crew) == 2
        bench.gate.set()
        await pool.drain()
        await settle()
        assert bench.workers == 3
        assert all(worker.number > 3 for worker in pool.engine.crew)
        assert not pool.engine.attention
        assert bench.died == []


async def test_a_new_worker_has_a_new_thread() -> None:
    async with Pool(workers=1) as pool:
        first = await (await pool.submit(threading.get_ident))
        assert await (await pool.submit(threading.get_ident)) == first
        before = pool_threads()
        pool.restart_workers()
        await (await pool.submit(threading.get_ident))
        assert pool_threads() != before
        await until(lambda: not any(thread.is_alive() for thread in before))


async def test_an_idle_worker_that_somebody_cancels_is_replaced() -> None:
    bench = Bench(workers=2)
    async with bench.pool as pool:
        await settle()
        worker_tasks()[0].cancel()
        await settle()
        assert bench.workers == 2
        assert len(bench.died) == 1
        assert [reason.code for reason in pool.health().reasons] == [Code.WORKER_DIED]
        await bench.fill(2)
        assert bench.inside == 2
        bench.gate.set()
        await bench.clock.advance(61.0)
        assert pool.health().reasons == ()


async def test_all_workers_cancelled_in_the_turn_of_a_submit_lose_no_job() -> None:
    bench = Bench(workers=3)
    async with bench.pool as pool:
        await settle()
        jobs = [await pool.submit(asyncio.sleep, 0, number) for number in range(5)]
        for task in worker_tasks():
            task.cancel()
        await settle()
        assert bench.workers == 3
        assert [await job for job in jobs] == list(range(5))


@pytest.mark.parametrize("retry", [None, TWICE])
async def test_a_worker_that_somebody_cancels_at_work_is_replaced_and_its_job_told(
    retry: RetryPolicy | None,
) -> None:
    bench = Bench(workers=1)
    async with bench.pool as pool:
        job = await pool.options(retry=retry).submit(bench.held)
        await settle()
        worker_tasks()[0].cancel()
        await settle()
        await bench.clock.advance(0.0)
        assert bench.workers == 1
        if retry is None:
            assert (job.state, job.reason) == (JobState.FAILED, Reason.WORKER_DIED)
            with pytest.raises(WorkerDiedError):
                await job
        else:
            assert (job.state, job.attempts) == (JobState.RUNNING, 2)
        assert await (await pool.submit(asyncio.sleep, 0, "next")) == "next" if not retry else True
        bench.gate.set()


async def test_a_worker_cancelled_while_its_thread_works_leaves_one_job_at_a_time() -> None:
    began, freed = threading.Event(), threading.Event()

    def stuck() -> None:
        began.set()
        freed.wait(WAIT_S)

    async with Pool(workers=1) as pool:
        job = await pool.submit(stuck)
        await asyncio.to_thread(began.wait, WAIT_S)
        worker_tasks()[0].cancel()
        await job.outcome(WAIT_S)
        assert job.reason is Reason.WORKER_DIED
        freed.set()
        assert await (await pool.submit(int, "7")) == 7


async def test_a_fault_of_a_worker_is_told_and_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(workers=2)
    async with bench.pool as pool:
        engine = pool.engine
        take, faults = engine.take, [ZeroDivisionError("a fault of ours")]

        def faulty(worker: Any) -> Any:
            if faults:
                raise faults.pop()
            return take(worker)

        monkeypatch.setattr(engine, "take", faulty)
        pool.restart_workers()
        await settle()
        job = await pool.submit(asyncio.sleep, 0, "done")
        await settle()
        assert await job == "done"
        assert bench.workers == 2
        assert [type(event.error) for event in bench.died] == [ZeroDivisionError]
        assert bench.died[0].pool == "pool"
        assert Code.WORKER_DIED in [reason.code for reason in pool.health().reasons]
        assert pool.numbers().deaths == 1


async def test_workers_that_keep_dying_do_not_keep_the_loop_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(workers=1)
    async with bench.pool as pool:
        engine = pool.engine
        take = engine.take

        def faulty(worker: Any) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr(engine, "take", faulty)
        pool.restart_workers()
        job = await pool.submit(asyncio.sleep, 0, "done")
        await settle()
        few = len(bench.died)
        assert few < 20
        await settle()
        assert len(bench.died) == few
        await bench.clock.advance(10.0)
        assert few < len(bench.died) < 50
        monkeypatch.setattr(engine, "take", take)
        await bench.clock.advance(1.0)
        assert await job == "done"
        assert bench.workers == 1


async def test_a_follower_that_raises_does_not_leave_a_dead_worker_behind() -> None:
    bench = Bench(workers=1)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def raises(_: WorkerDied) -> None:
        raise ZeroDivisionError

    bench.events.follow(WorkerDied, raises)
    async with bench.pool as pool:
        await settle()
        worker_tasks()[0].cancel()
        await settle()
        assert bench.workers == 1
        assert await (await pool.submit(asyncio.sleep, 0, "next")) == "next"


async def test_nothing_of_a_pool_is_left_after_its_end() -> None:
    gc.collect()
    threads = set(threading.enumerate())
    async with Pool(workers=3) as pool:
        pids = {
            await job
            for job in [await pool.options(kind="process").submit(os.getpid) for _ in range(3)]
        }
        jobs = [await pool.submit(time.sleep, 0.001) for _ in range(10)]
        await jobs[-1]
        assert pool_threads()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    await until(lambda: not [thread for thread in pool_threads() if thread not in threads])
    assert not worker_tasks()


async def test_a_worker_that_leaves_ends_its_process_without_stopping_the_loop() -> None:
    async with Pool(workers_min=1, workers_max=2) as pool:
        pid = await (await pool.options(kind="process").submit(os.getpid))
        pool.restart_workers()
        turns = 0

        def gone() -> bool:
            nonlocal turns
            turns += 1
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        await until(gone)
        assert turns > 1


async def test_a_worker_cancelled_over_its_process_ends_that() -> None:
    def dead(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    async with Pool(workers=1) as pool:
        pid = await (await pool.options(kind="process").submit(os.getpid))
        job = await pool.options(kind="process").submit(time.sleep, WAIT_S)
        await until(lambda: job.state is JobState.RUNNING)
        worker_tasks()[0].cancel()
        await job.outcome(WAIT_S)
        await until(lambda: dead(pid))


async def test_a_thread_job_whose_worker_is_cancelled_is_not_retried_as_it_runs_on() -> None:
    began, freed = threading.Event(), threading.Event()
    calls: list[int] = []

    def stuck() -> None:
        calls.append(1)
        began.set()
        freed.wait(WAIT_S)

    async with Pool(workers=2) as pool:
        job = await pool.options(retry=TWICE).submit(stuck)
        try:
            await asyncio.to_thread(began.wait, WAIT_S)
            assert job.worker is not None
            job.worker.ended.cancel()
            outcome = await job.outcome(WAIT_S)
            await pool.drain()
            assert (outcome.state, outcome.reason) == (JobState.FAILED, Reason.WORKER_DIED)
            assert (outcome.attempts, pool.numbers().retries, len(calls)) == (1, 0, 1)
        finally:
            freed.set()
    assert len(calls) == 1


async def test_every_change_of_the_number_is_told_with_its_reason() -> None:
    bench = Bench(workers_min=2, workers_max=5)
    async with bench.pool as pool:
        pool.scale(+2)
        pool.scale(+2)
        pool.scale(+2)  # there are five already
        pool.resize(1, 3)
        pool.resize(4, 6)
        pool.reconfigure(workers=7)
        pool.reconfigure(queue_size=7)
        pool.restart_workers()
        await settle()
        assert bench.workers == 7
    assert [(event.before, event.workers, event.reason) for event in bench.scaled] == [
        (2, 4, ScaleReason.BY_HAND),
        (4, 5, ScaleReason.BY_HAND),
        (5, 3, ScaleReason.ABOVE_MAXIMUM),
        (3, 4, ScaleReason.BELOW_MINIMUM),
        (4, 7, ScaleReason.BELOW_MINIMUM),
    ]
    assert {event.pool for event in bench.scaled} == {"pool"}


async def test_a_follower_that_raises_leaves_no_half_changed_pool() -> None:
    def fail(_: Scaled) -> None:
        raise ZeroDivisionError

    bench = Bench(workers=2)
    async with bench.pool as pool:
        bench.events.follow(Scaled, fail)
        with pytest.raises(ZeroDivisionError):
            pool.reconfigure(workers=4, queue_size=1, rate="1/s")
        assert (bench.workers, pool.engine.crew.size, pool.engine.intake.room) == (4, 4, 1)
        assert pool.settings.workers_max == pool.engine.settings.workers_max == 4
