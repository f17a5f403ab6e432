"""A pool's life: start, pause, drain and close, whoever asks for it and whatever goes on."""

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest

from mailrace.errors import MisuseError
from mailrace.pool import (
    Job,
    JobState,
    Pool,
    PoolClosedError,
    current_job,
)
from tests.pool.gated import WAIT_S, Bench, BoomError, handed_back, worker_tasks
from tests.support.clock import settle


async def test_a_pool_that_was_not_started_says_how_to_start_it() -> None:
    pool = Pool()
    for use in (pool.pause, pool.ledger, pool.numbers, pool.restart_workers, pool.close_soon):
        with pytest.raises(MisuseError, match=r"not started.*async with"):
            use()
    with pytest.raises(MisuseError, match=r"not started.*async with"):
        await pool.submit(print)
    with pytest.raises(MisuseError, match=r"not started.*async with"):
        await pool.close()


async def test_starting_twice_changes_nothing() -> None:
    bench = Bench(workers=3)
    await bench.pool.start()
    await bench.pool.start()
    assert len(worker_tasks()) == 3
    await bench.pool.close()


async def test_leaving_the_body_waits_for_everything() -> None:
    bench = Bench()
    async with bench.pool as pool:
        job = await pool.submit(bench.held, 1)
        delayed = await bench.retried_after(50.0).submit(bench.boom)
        asyncio.get_running_loop().call_soon(bench.gate.set)
        flying = asyncio.ensure_future(bench.clock.advance(0.0))
        for _ in range(20):
            await asyncio.sleep(0)
        later = asyncio.ensure_future(bench.clock.advance(60.0))
    assert await job == 1
    assert delayed.attempts == 2
    await flying
    await later


async def test_a_body_that_raises_ends_everything_at_once() -> None:
    bench = Bench()
    jobs: list[Job[Any]] = []

    async def body() -> None:
        async with bench.pool as pool:
            jobs.extend([await pool.submit(bench.held), await pool.submit(bench.note)])
            await settle()
            raise BoomError

    with pytest.raises(BoomError):
        await body()
    assert all(map(handed_back, jobs))
    assert not worker_tasks()


async def test_a_body_that_is_turned_away_by_a_closing_pool_does_not_hurry_it() -> None:
    bench = Bench()
    jobs: list[Job[Any]] = []
    later: list[asyncio.Task[None]] = []

    async def let_go_later() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        bench.gate.set()

    async def body() -> None:
        async with bench.pool as pool:
            jobs.extend([await pool.submit(bench.held, 1), await pool.submit(bench.note, 2)])
            await settle()
            pool.close_soon(30.0)
            later.append(asyncio.ensure_future(let_go_later()))
            await pool.submit(bench.note, 3)

    with pytest.raises(PoolClosedError):
        await body()
    assert [await job for job in jobs] == [1, 2]


async def test_a_paused_pool_starts_nothing_and_lets_what_runs_go_on() -> None:
    bench = Bench()
    async with bench.pool as pool:
        running = await pool.submit(bench.held, 1)
        await settle()
        pool.pause()
        pool.pause()
        waiting = await pool.submit(bench.note, 2)
        bench.gate.set()
        assert await running == 1
        await bench.clock.advance(1000.0)
        assert bench.ran == [1]
        assert "paused" in repr(pool)
        pool.resume()
        assert await waiting == 2


async def test_in_a_paused_pool_jobs_still_expire_and_can_be_cancelled() -> None:
    bench = Bench()
    async with bench.pool as pool:
        pool.pause()
        expiring = await pool.options(expires=5.0).submit(bench.note)
        cancelled = await pool.submit(bench.note)
        assert cancelled.cancel()
        await bench.clock.advance(5.0)
        assert expiring.state is JobState.EXPIRED
        pool.resume()
    assert bench.ran == []


async def test_a_pool_paused_with_its_intake_lets_nobody_in_until_it_goes_on() -> None:
    bench = Bench()
    async with bench.pool as pool:
        pool.pause(intake=True)
        submit = asyncio.ensure_future(pool.submit(bench.note, 1))
        await settle()
        assert not submit.done()
        assert pool.ledger().accepted == 0
        pool.resume()
        assert await (await submit) == 1


async def test_draining_waits_for_delayed_jobs_and_leaves_the_pool_open() -> None:
    bench = Bench()
    async with bench.pool as pool:
        job = await bench.retried_after(5.0, 7.0).submit(bench.boom)
        draining = asyncio.ensure_future(pool.drain())
        await bench.clock.advance(11.9)
        assert not draining.done()
        await bench.clock.advance(0.2)
        assert draining.done()
        assert job.attempts == 3
        assert await (await pool.submit(bench.note, 1)) == 1
        await pool.drain()


async def test_jobs_that_drain_their_pool_wait_only_for_the_others() -> None:
    bench = Bench(workers=1)
    async with bench.pool as pool:
        draining = [await pool.submit(pool.drain) for _ in range(2)]
        other = await pool.submit(bench.note, 1)
        await settle()
        assert other.done()
        await asyncio.gather(*[job.outcome() for job in draining])
        assert pool.ledger().completed == 3
        assert not pool.engine.quiet.excused


async def test_a_pool_that_drains_can_be_left_alone_and_asked_again() -> None:
    bench = Bench()
    async with bench.pool as pool:
        await pool.submit(bench.held)
        draining = asyncio.ensure_future(pool.drain())
        await settle()
        draining.cancel()
        await settle()
        assert not pool.engine.quiet.awaited
        bench.gate.set()
        await pool.drain()
        assert pool.ledger().completed == 1


def test_one_pool_under_two_loops_is_refused() -> None:
    pool = Pool(workers=1)

    async def start() -> None:
        await pool.start()

    async def use() -> None:
        with pytest.raises(MisuseError, match="another event loop"):
            await pool.start()
        with pytest.raises(MisuseError, match="another event loop"):
            await pool.submit(time.monotonic)
        with pytest.raises(MisuseError, match="another event loop"):
            pool.submit_nowait(time.monotonic)
        with pytest.raises(MisuseError, match="another event loop"):
            await pool.close()

    asyncio.run(start())
    asyncio.run(use())
    with pytest.raises(MisuseError, match="event loop is closed"):
        pool.submit_threadsafe(time.monotonic)


async def test_another_thread_is_told_to_submit_the_way_that_threads_do() -> None:
    async with Pool(workers=1) as pool:
        with pytest.raises(MisuseError, match="submit_threadsafe"):
            await asyncio.to_thread(pool.submit_nowait, time.monotonic)
        with pytest.raises(MisuseError, match=r"await pool\.submit"):
            pool.submit_threadsafe(time.monotonic)


async def test_a_job_of_another_loop_is_not_awaited_there() -> None:
    bench = Bench()
    async with bench.pool as pool:
        job = await pool.submit(bench.held)

        async def elsewhere() -> None:
            await job

        with pytest.raises(MisuseError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(MisuseError, match="another event loop"):
            await asyncio.to_thread(job.cancel)
        bench.gate.set()
        assert await job is None


# What the loop's end does to a pool that nobody has closed.


def run_program(program: str, *, stop_after: str = "", signals: int = 0) -> "Finished":
    """Runs a program of its own; sends it signals after it has written something."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        before = ""
        if stop_after:
            for line in process.stdout:
                before += line
                if line.strip() == stop_after:
                    break
        for number in range(signals):
            if number:
                assert process.stdout.readline().strip() == "asked"
            process.terminate()
        output, errors = process.communicate(timeout=WAIT_S)
        return Finished(process.returncode, before + output, errors)


class Finished:
    """What became of a program."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.lines = output.split("\n")[:-1]
        self.errors = errors


_ABANDONED = """
import asyncio, time
from mailrace.pool import Pool

async def sleep():
    await asyncio.sleep(1000)

async def main():
    pool = Pool(workers=3, queue_size=10)
    await pool.start()
    jobs = [await pool.submit(sleep) for _ in range(6)]
    await pool.submit(time.sleep, 0)
    waiting = [asyncio.ensure_future(pool.submit(sleep)) for _ in range(6)]
    reading = asyncio.ensure_future(anext(pool.outcomes()))
    await asyncio.sleep(0.05)
    return pool

pool = asyncio.run(main())
print(len(pool.engine.crew))
ledger = pool.ledger()
print(ledger.accepted - ledger.handed_back - ledger.failed - ledger.cancelled)
"""


def test_a_loop_that_ends_over_an_open_pool_neither_hangs_nor_makes_a_noise() -> None:
    finished = run_program(_ABANDONED)
    assert (finished.code, finished.errors) == (0, "")
    assert finished.lines == ["0", "0"]


_WAITED_FOR = """
import asyncio, threading
from mailrace.pool import Pool, PoolClosedError

async def sleep():
    await asyncio.sleep(1000)

def wait(pool, told):
    told.append(pool.submit_threadsafe(sleep))
    told.append(pool.submit_threadsafe(sleep))
    for future in told:
        try:
            future.result()
        except Exception as error:
            print(type(error).__name__)

async def main(thread):
    thread.append(threading.Thread(target=wait, args=(await Pool(workers=1).start(), [])))
    thread[0].start()
    await asyncio.sleep(0.2)

thread = []
asyncio.run(main(thread))
thread[0].join()
"""


def test_a_thread_that_waits_for_a_job_is_told_when_the_loop_ends() -> None:
    finished = run_program(_WAITED_FOR)
    assert (finished.code, finished.errors) == (0, "")
    assert finished.lines == ["WorkerDiedError", "PoolClosedError"]


_SIGNALLED = """
import asyncio, signal
from mailrace.pool import Pool

async def work(number, takes_s):
    await asyncio.sleep(takes_s)
    print("done", number, flush=True)

async def main():
    async with Pool(workers=1) as pool:
        def stop():
            pool.close_soon()
            print("asked", flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        for number in range(3):
            await pool.submit(work, number, TAKES_S)
        print("ready", flush=True)
        await asyncio.Event().wait() if FOREVER else None
    report = await pool.close()
    print("unfinished", [job.args[0] for job in report.unfinished], flush=True)

asyncio.run(main())
"""


def signalled(*, takes_s: float, signals: int) -> Finished:
    program = _SIGNALLED.replace("TAKES_S", str(takes_s)).replace("FOREVER", "False")
    return run_program(program, stop_after="ready", signals=signals)


def test_a_signal_has_the_pool_work_off_what_it_has() -> None:
    finished = signalled(takes_s=0.2, signals=1)
    assert (finished.code, finished.errors) == (0, "")
    assert finished.lines == [
        "ready", "asked", "done 0", "done 1", "done 2", "unfinished []",
    ]  # fmt: skip


def test_a_second_signal_ends_it_at_once() -> None:
    finished = signalled(takes_s=WAIT_S, signals=2)
    assert (finished.code, finished.errors) == (0, "")
    assert finished.lines == ["ready", "asked", "unfinished [0, 1, 2]"]


_STILL = """
import asyncio, time
from mailrace.pool import Pool

async def main():
    async with Pool(workers=50) as pool:
        await (await pool.submit(time.monotonic))
        await asyncio.sleep(0.1)
        idle = time.process_time()
        await asyncio.sleep(1.0)
        idle = time.process_time() - idle
        pool.pause()
        for _ in range(100):
            await pool.options(expires=1000).submit(time.monotonic)
        await asyncio.sleep(0.1)
        paused = time.process_time()
        await asyncio.sleep(1.0)
        paused = time.process_time() - paused
        await pool.close(0)
    print(idle < 0.01, paused < 0.01, idle, paused)

asyncio.run(main())
"""


def test_an_idle_and_a_paused_pool_use_no_processor_time() -> None:
    finished = run_program(_STILL)
    assert finished.errors == ""
    assert finished.lines[0].startswith("True True"), finished.lines


async def test_a_callback_that_raises_harms_neither_the_worker_nor_who_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def raises(job: Job[Any]) -> None:
        raise BoomError(job.id)

    async with bench.pool as pool:
        job = await pool.submit(bench.held, 1)
        job.add_done_callback(raises)
        waiting = asyncio.ensure_future(job.result())
        await settle()
        bench.gate.set()
        assert await waiting == 1
        assert pool.numbers().deaths == 0
    assert [type(context["exception"]) for context in told] == [BoomError]


async def test_the_job_at_work_is_known_inside_and_nowhere_else() -> None:
    async def inside() -> int:
        return current_job().id

    async with Pool(workers=1) as pool:
        job = await pool.submit(inside)
        assert await job == job.id
        thread_job = await pool.submit(lambda: current_job().id)
        assert await thread_job == thread_job.id
    with pytest.raises(MisuseError, match="no current job"):
        current_job()
