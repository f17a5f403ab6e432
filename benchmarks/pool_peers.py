"""What the pool is measured beside: asyncio alone and the libraries, each as fast as it goes.

All do the same: `count` jobs of one function over `workers` slots, through submit to the awaited
result, with at most a thousand jobs in flight and the sum of all results as proof. Each is written
the fastest way its present version allows. A peer is opened and warmed
before the clock starts, so that starting workers costs nothing.

The libraries are in the dependency group `bench`; what is not installed is named and left out.
"""

import asyncio
import multiprocessing
import platform
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeAlias

from pool_jobs import IN_FLIGHT, BlockingJob, CoroutineJob, Peer, Run, chunks, windowed

_BATCH = 50

Whole: TypeAlias = Callable[[CoroutineJob, int, int], Coroutine[Any, Any, int]]


async def semaphore(function: CoroutineJob, count: int, workers: int) -> int:
    slots = asyncio.Semaphore(workers)

    async def one(number: int) -> int:
        async with slots:
            return await function(number)

    return await windowed(asyncio.create_task(one(number)) for number in range(count))


@asynccontextmanager
async def queue(workers: int) -> AsyncIterator[Run[CoroutineJob]]:
    waiting: asyncio.Queue[tuple[CoroutineJob, int, asyncio.Future[int]]]
    waiting = asyncio.Queue(IN_FLIGHT)
    create_future = asyncio.get_running_loop().create_future

    async def worker() -> None:
        while True:
            function, number, future = await waiting.get()
            try:
                result = await function(number)
            except Exception as error:  # noqa: BLE001 - whoever awaits the future gets it
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

    def submit(function: CoroutineJob, number: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = create_future()
        # Never full, as no more than fit in are in flight.
        waiting.put_nowait((function, number, future))
        return future

    async def run(function: CoroutineJob, count: int) -> int:
        return await windowed(submit(function, number) for number in range(count))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker()) for _ in range(workers)]
        try:
            yield run
        finally:
            for task in tasks:
                task.cancel()


async def gather(function: CoroutineJob, count: int, workers: int) -> int:
    del workers
    total = 0
    for chunk in chunks(count):
        total += sum(await asyncio.gather(*[function(number) for number in chunk]))
    return total


async def iterator(function: CoroutineJob, count: int, workers: int) -> int:
    numbers = iter(range(count))

    async def worker() -> int:
        total = 0
        for number in numbers:
            total += await function(number)
        return total

    return sum(await asyncio.gather(*[worker() for _ in range(workers)]))


@asynccontextmanager
async def aiojobs(workers: int) -> AsyncIterator[Run[CoroutineJob]]:
    async with _library("aiojobs").Scheduler(limit=workers, pending_limit=IN_FLIGHT) as scheduler:

        async def run(function: CoroutineJob, count: int) -> int:
            # By hand and not `windowed`, as `spawn` has to be awaited. To wait for the oldest
            # pays: `wait` makes a task for a job that is not done, and none for one that is.
            total = 0
            jobs: deque[Any] = deque()
            for number in range(count):
                if len(jobs) == IN_FLIGHT:
                    total += await jobs.popleft().wait()
                jobs.append(await scheduler.spawn(function(number)))
            for job in jobs:
                total += await job.wait()
            return total

        yield run


async def aiometer_amap(function: CoroutineJob, count: int, workers: int) -> int:
    amap = _library("aiometer").amap
    total = 0
    for chunk in chunks(count):
        async with amap(function, chunk, max_at_once=workers) as results:
            async for result in results:
                total += result
    return total


async def aiometer_run_on_each(function: CoroutineJob, count: int, workers: int) -> int:
    total = 0

    async def one(number: int) -> None:
        nonlocal total
        result = await function(number)
        total += result

    # Starts no more tasks than run at once, so that a range of any length is bounded.
    await _library("aiometer").run_on_each(one, range(count), max_at_once=workers)
    return total


async def anyio_limiter(function: CoroutineJob, count: int, workers: int) -> int:
    anyio = _library("anyio")
    full = anyio.WouldBlock
    limiter = anyio.CapacityLimiter(workers)
    total = 0

    async def one(number: int) -> None:
        nonlocal total
        try:
            result = await function(number)
        finally:
            limiter.release_on_behalf_of(number)
        total += result

    # The slot is taken before the task starts, without a turn of the loop where one is free: up
    # to 1.8 times as fast as `async with limiter` inside the task, and bounded by itself.
    async with anyio.create_task_group() as group:
        for number in range(count):
            try:
                limiter.acquire_on_behalf_of_nowait(number)
            except full:
                await limiter.acquire_on_behalf_of(number)
            group.start_soon(one, number)
    return total


@asynccontextmanager
async def in_executor(
    executor: Callable[[int], Executor], workers: int
) -> AsyncIterator[Run[BlockingJob]]:
    start = asyncio.get_running_loop().run_in_executor
    with executor(workers) as pool:

        async def run(function: BlockingJob, count: int) -> int:
            return await windowed(start(pool, function, number) for number in range(count))

        yield run


@asynccontextmanager
async def submitted(
    executor: Callable[[int], Executor], workers: int
) -> AsyncIterator[Run[BlockingJob]]:
    with executor(workers) as pool:
        # A plain function as far as the loop is concerned, which has nothing else to do.
        async def run(function: BlockingJob, count: int) -> int:
            total = 0
            futures: deque[Future[int]] = deque()
            for number in range(count):
                if len(futures) == IN_FLIGHT:
                    total += futures.popleft().result()
                futures.append(pool.submit(function, number))
            return total + sum(future.result() for future in futures)

        yield run


@asynccontextmanager
async def mapped(
    executor: Callable[[int], Executor], batch: int, workers: int
) -> AsyncIterator[Run[BlockingJob]]:
    with executor(workers) as pool:

        async def run(function: BlockingJob, count: int) -> int:
            # In chunks, as `map` submits all it is given at once.
            return sum(sum(pool.map(function, chunk, chunksize=batch)) for chunk in chunks(count))

        yield run


def processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@asynccontextmanager
async def nothing_kept(whole: Whole, workers: int) -> AsyncIterator[Run[CoroutineJob]]:
    """Opens a peer that keeps nothing open between two runs."""

    async def run(function: CoroutineJob, count: int) -> int:
        return await whole(function, count, workers)

    yield run


def _library(name: str) -> Any:
    """A library that may be missing, and whose types are not asked for."""
    return import_module(name)


PEERS: dict[str, Peer[CoroutineJob]] = {
    "semaphore": Peer(
        label="asyncio alone, tasks and a semaphore", open=partial(nothing_kept, semaphore)
    ),
    "queue": Peer(label="asyncio alone, queue, workers, futures", open=queue),
    "gather": Peer(
        label="asyncio.gather by the thousand (bounds nothing)", open=partial(nothing_kept, gather)
    ),
    "iterator": Peer(
        label="workers over one iterator (no submit, no result a job)",
        open=partial(nothing_kept, iterator),
    ),
    "aiojobs": Peer(label="aiojobs, spawn and wait", open=aiojobs, package="aiojobs"),
    "aiometer.amap": Peer(
        label="aiometer.amap", open=partial(nothing_kept, aiometer_amap), package="aiometer"
    ),
    "aiometer.run_on_each": Peer(
        label="aiometer.run_on_each (no result a job)",
        open=partial(nothing_kept, aiometer_run_on_each),
        package="aiometer",
    ),
    "anyio": Peer(
        label="anyio, task group and capacity limiter",
        open=partial(nothing_kept, anyio_limiter),
        package="anyio",
    ),
}
THREAD_PEERS: dict[str, Peer[BlockingJob]] = {
    "run_in_executor": Peer(
        label="ThreadPoolExecutor, run_in_executor", open=partial(in_executor, ThreadPoolExecutor)
    ),
    "submit": Peer(
        label="ThreadPoolExecutor, submit (no loop)", open=partial(submitted, ThreadPoolExecutor)
    ),
    "map": Peer(
        label="ThreadPoolExecutor, map (no loop)", open=partial(mapped, ThreadPoolExecutor, 1)
    ),
}
PROCESS_PEERS: dict[str, Peer[BlockingJob]] = {
    "run_in_executor": Peer(
        label="ProcessPoolExecutor, run_in_executor", open=partial(in_executor, processes)
    ),
    "submit": Peer(
        label="ProcessPoolExecutor, submit (no loop)", open=partial(submitted, processes)
    ),
    "map": Peer(
        label=f"ProcessPoolExecutor, map by {_BATCH} (no loop)",
        open=partial(mapped, processes, _BATCH),
    ),
}
ASYNCIO_ALONE = ("semaphore", "queue")
"""What one writes with the standard library."""
LIBRARIES = ("aiojobs", "aiometer.amap", "aiometer.run_on_each", "anyio")
"""What one installs instead."""


def missing() -> list[str]:
    """The libraries of peers that cannot be measured here."""
    packages = {peer.package for peer in PEERS.values() if not peer.installed}
    return sorted(package for package in packages if package is not None)


def versions() -> list[str]:
    """What is measured: the interpreter, and the libraries that are installed."""
    named = {peer.package for peer in PEERS.values()} | {"uvloop"}
    installed = sorted(each for each in named if each is not None and find_spec(each) is not None)
    return [
        f"Python {platform.python_version()}",
        *(f"{each} {version(each)}" for each in installed),
    ]
