"""From submit to start at half load, how soon workers come and go, and what waiting costs.

Arrivals are steady: each job is submitted when its time has come, whatever became of the others.
The times are the medians of the runs' percentiles. Where other programs take the core away in the
middle of a run, its tail is theirs and not the pool's: such a run is made again, a few times.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from bench_pool import ours, rate
from limits import at_most
from loops import LOOPS, default_loop, loop_factory
from pool_jobs import nothing
from stats import Figure, figure, table

from mailrace.pool import Kind, Pool

_WORKERS = 10
_COUNT = 20_000
_ARRIVING_S = 2.0
_START_P99_MS = 1.0
_UP_MS = 10.0
_DOWN_MS = 100.0
_CPU_SHARE = 0.01
_SHARE_MIN = 0.98
_TRIES = 5
_STEP = 50
_IDLE_S = 0.1
_LOOK_S = 0.001
# No cool-down stands between what asks for a change and the change.
_AT_ONCE: dict[str, Any] = {"scale_up_cool_down": 1e-6, "scale_down_cool_down": 1e-6}
_NEVER = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """One run.

    Attributes:
        late_ms: From submit to start, in milliseconds, sorted.
        share: The share of one core that the run had. It takes all that it gets.
    """

    late_ms: list[float]
    share: float

    def percentile(self, part: float) -> float:
        return self.late_ms[int(len(self.late_ms) * part)]


async def starts(per_s: float) -> Starts:
    """Jobs that arrive so fast."""
    late_ms: list[float] = []

    async def job(submitted: float) -> None:
        late_ms.append((time.perf_counter() - submitted) * 1000)

    async with Pool(workers=_WORKERS, queue_size=10_000) as pool:
        begin, cpu = time.perf_counter(), time.process_time()
        submitted = 0
        while (passed := time.perf_counter() - begin) < _ARRIVING_S:
            while submitted < passed * per_s:
                await pool.submit(job, time.perf_counter())
                submitted += 1
            # Not by a timer of the loop, which is too coarse: as if a socket had brought it.
            await asyncio.sleep(0)
        share = (time.process_time() - cpu) / (time.perf_counter() - begin)
    return Starts(late_ms=sorted(late_ms[len(late_ms) // 10 :]), share=share)


async def up_by_hand_ms() -> float:
    """From `scale` until all the new workers have jobs."""
    settings: dict[str, Any] = {"scale_up_at": _NEVER, "scale_up_wait": _NEVER, **_AT_ONCE}
    async with Pool(workers_min=1, workers_max=_STEP + 1, **settings) as pool:
        begun, end = await _blocked(pool, _STEP + 1)
        await _until(lambda: len(begun) == 1)
        begin = time.perf_counter()
        pool.scale(_STEP)
        await _until(lambda: len(begun) > _STEP)
        end.set()
    return (begun[-1] - begin) * 1000


async def up_by_load_ms() -> float:
    """From the submit that makes too many wait until the worker that came for it has a job."""
    async with Pool(workers_min=2, workers_max=10, scale_up_at=5) as pool:
        begun, end = await _blocked(pool, 2)
        await _until(lambda: len(begun) == 2)
        for _ in range(4):
            await pool.submit(_wait, begun, end)
        begin = time.perf_counter()
        await pool.submit(_wait, begun, end)
        await _until(lambda: len(begun) > 2)
        end.set()
    return (begun[2] - begin) * 1000


async def down_by_hand_ms() -> float:
    """From `scale` until so many idle workers are gone."""
    async with Pool(workers_min=1, workers_max=_STEP + 1, **_AT_ONCE) as pool:
        pool.scale(_STEP)
        await _until(lambda: pool.numbers().idle == _STEP + 1)
        begin = time.perf_counter()
        pool.scale(-_STEP)
        await _until(lambda: pool.numbers().workers == 1)
        return (time.perf_counter() - begin) * 1000


async def down_when_due_ms() -> float:
    """From the moment in which workers have been idle for long enough until they are gone."""
    times: dict[str, Any] = {"idle_timeout": _IDLE_S, **_AT_ONCE}
    async with Pool(workers_min=1, workers_max=_STEP + 1, **times) as pool:
        pool.scale(_STEP)
        begun, end = await _blocked(pool, _STEP + 1)
        await _until(lambda: len(begun) > _STEP)
        end.set()
        await pool.drain()
        due = time.perf_counter() + _IDLE_S
        await _until(lambda: pool.numbers().workers == 1)
        return (time.perf_counter() - due) * 1000


async def idle_share(seconds: float) -> float:
    """The share of one core that a pool with nothing to do takes."""
    async with Pool(workers=_WORKERS) as pool:
        await pool.submit(nothing, 0)
        await pool.drain()
        return await _cpu_share(seconds)


async def paused_share(seconds: float) -> float:
    """The same of a paused one in which jobs wait."""
    async with Pool(workers=_WORKERS) as pool:
        pool.pause()
        for number in range(50):
            await pool.submit(nothing, number)
        share = await _cpu_share(seconds)
        pool.resume()
    return share


async def _cpu_share(seconds: float) -> float:
    await asyncio.sleep(0.05)
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


async def _blocked(pool: Pool, count: int) -> tuple[list[float], asyncio.Event]:
    """Submits jobs that end when the event is set; they note when they started."""
    begun: list[float] = []
    end = asyncio.Event()
    for _ in range(count):
        await pool.submit(_wait, begun, end)
    return begun, end


async def _wait(begun: list[float], end: asyncio.Event) -> None:
    begun.append(time.perf_counter())
    await end.wait()


async def _until(there: Callable[[], bool]) -> None:
    while not there():  # noqa: ASYNC110 - what is awaited has no event, and must not need one
        await asyncio.sleep(_LOOK_S)


def measure(
    *, runs: int = 5, seconds: float = 2.0, count: int = _COUNT, loop: str | None = None
) -> list[Figure]:
    """All of it on one loop.

    Args:
        seconds: How long the CPU time of a pool is watched that has nothing to do.
    """
    loop = loop or default_loop()
    return [
        *_of_starts(runs, count, loop),
        *_of_scaling(runs, loop),
        *(
            at_most(
                f"CPU time of {state} pool",
                _runs(partial(share, seconds), 1, loop),
                "of a core",
                _CPU_SHARE,
            )
            for state, share in (("an idle", idle_share), ("a paused", paused_share))
        ),
    ]


def _of_starts(runs: int, count: int, loop: str) -> list[Figure]:
    pool = ours(Kind.LOOP)["pool"]
    measured = partial(rate, pool, nothing, count=count, workers=_WORKERS, loop=loop)
    most = sorted(measured() for _ in range(runs))[runs // 2]
    times = [_undisturbed(most / 2, loop) for _ in range(runs)]
    p50, p99 = ([one.percentile(part) for one in times] for part in (0.5, 0.99))
    name = f"submit to start at {most / 2:,.0f} jobs/s, {loop}"
    return [
        figure(f"{name}: had", [one.share for one in times], "of a core"),
        figure(f"{name}: p50", p50, "ms"),
        at_most(f"{name}: p99", p99, "ms", _START_P99_MS),
    ]


def _undisturbed(per_s: float, loop: str) -> Starts:
    """The first run that had the core to itself; if there is none, the one that had most of it."""
    tried = []
    for _ in range(_TRIES):
        tried += _runs(partial(starts, per_s), 1, loop)
        if tried[-1].share >= _SHARE_MIN:
            break
    return max(tried, key=lambda one: one.share)


def _of_scaling(runs: int, loop: str) -> list[Figure]:
    measured = (
        (f"{_STEP} workers more by hand", up_by_hand_ms, _UP_MS),
        ("a worker more by load", up_by_load_ms, _UP_MS),
        (f"{_STEP} workers fewer by hand", down_by_hand_ms, _DOWN_MS),
        (f"{_STEP} workers fewer when due", down_when_due_ms, _DOWN_MS),
    )
    return [
        at_most(f"{name}, {loop}", _runs(each, runs, loop), "ms", most)
        for name, each, most in measured
    ]


def _runs(measured: Callable[[], Coroutine[Any, Any, T]], runs: int, loop: str) -> list[T]:
    values = []
    for _ in range(runs):
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            values.append(runner.run(measured()))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--loop", choices=LOOPS, default=default_loop())
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
