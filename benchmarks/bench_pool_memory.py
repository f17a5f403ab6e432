"""Bytes of a queued job and of an idle worker, and a million jobs through a queue of a thousand.

Bytes are what tracemalloc counts: what Python asked for, without the allocator's own rounding.
"""

import argparse
import asyncio
import gc
import os
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from limits import at_most
from loops import default_loop, loop_factory
from pool_jobs import nothing
from stats import Figure, table

from mailrace.pool import Pool

_QUEUED = 20_000
_WORKERS = 1_000
_QUEUE = 1_000
_JOB_BYTES = 400
_WORKER_BYTES = 4_096
# What the original claims for itself.
_CLAIMED_JOB_BYTES = 100
_CLAIMED_WORKER_BYTES = 2_048
# A leak of one small object a job would be twenty times that.
_GROWTH_MB = 2.0
_JOBS = 1_000_000


class Traced:
    """What was allocated inside a `with`, and not given back."""

    size = 0


@contextmanager
def traced() -> Iterator[Traced]:
    found = Traced()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield found
        gc.collect()
        found.size = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


async def job_bytes() -> float:
    """Of a queued job with one small argument, whose handle nobody keeps."""
    async with Pool(workers=1, queue_size=_QUEUED) as pool:
        pool.pause()
        with traced() as found:
            for number in range(_QUEUED):
                await pool.submit(nothing, number)
        pool.purge()
        pool.resume()
    return found.size / _QUEUED


async def worker_bytes() -> float:
    """Of a worker that has nothing to do: its task, its future, everything."""
    async with Pool(workers_min=1, workers_max=_WORKERS + 1) as pool:
        await asyncio.sleep(0.01)
        with traced() as found:
            pool.scale(_WORKERS)
            while pool.numbers().idle <= _WORKERS:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
    return found.size / _WORKERS


async def growth_mb(count: int) -> float:
    """Resident memory at the end of so many jobs above that after a tenth of them."""
    async with Pool(workers=10, queue_size=_QUEUE) as pool:
        await _push(pool, count // 10)
        before_mb = _rss_mb()
        await _push(pool, count - count // 10)
        after_mb = _rss_mb()
        if (ledger := pool.ledger()).completed != count:
            raise RuntimeError(f"not {count} jobs were completed: {ledger}")
    return after_mb - before_mb


async def _push(pool: Pool, count: int) -> None:
    """Jobs whose results nobody looks at, as fast as there is room for them."""
    for number in range(count):
        await pool.submit(nothing, number)
    await pool.drain()


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(*, jobs: int = _JOBS, runs: int = 3) -> list[Figure]:
    queued = _values(job_bytes, runs)
    idle = _values(worker_bytes, runs)
    grown = _values(partial(growth_mb, jobs), 1)
    claimed = partial(at_most, beside="claimed", promised=False)
    return [
        at_most("a queued job", queued, "bytes", _JOB_BYTES),
        claimed("  the same", queued, "bytes", _CLAIMED_JOB_BYTES),
        at_most("an idle worker", idle, "bytes", _WORKER_BYTES),
        claimed("  the same", idle, "bytes", _CLAIMED_WORKER_BYTES),
        at_most(
            f"{jobs:,} jobs through a queue of {_QUEUE:,}, growth after a tenth",
            grown,
            "MB",
            _GROWTH_MB,
        ),
    ]


def _values(measured: Callable[[], Coroutine[Any, Any, float]], runs: int) -> list[float]:
    values = []
    for _ in range(runs):
        with asyncio.Runner(loop_factory=loop_factory(default_loop())) as runner:
            values.append(runner.run(measured()))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=_JOBS)
    parser.add_argument("--runs", type=int, default=3)
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
