"""What the durable queue does for its benchmarks: jobs that do nothing, on a store made anew."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from servers import Postgres

from mailrace.jobs import Handlers, Queue, Worker, WorkerSettings, open_queue, open_worker
from mailrace.queue.states import JobState

KIND = "noop"
HANDLERS = Handlers()
PART = 5000
_BUILD = Path(__file__).resolve().parent.parent / "build"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A store that nobody else uses.

    Attributes:
        journals: Where its processes keep their journals: on the disk of the store, if it has one.
    """

    store: str
    journals: str


@HANDLERS.register(KIND)
async def noop(_payload: object) -> None:
    """Does nothing."""


@contextmanager
def folder_on_disk() -> Iterator[Path]:
    """A folder for a while on the disk that the code lies on: /tmp may be in memory."""
    _BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_BUILD) as name:
        yield Path(name)


@contextmanager
def sqlite_place() -> Iterator[Place]:
    """A SQLite file, with the journals beside it."""
    with folder_on_disk() as folder:
        yield Place(store=f"sqlite:///{folder}/queue.db", journals=f"{folder}/journals")


@contextmanager
def postgres_place(server: Postgres) -> Iterator[Place]:
    """A database of a server, with the journals in a folder."""
    with server.database("queue") as store, folder_on_disk() as folder:
        yield Place(store=store, journals=str(folder))


def payloads(jobs: int) -> list[dict[str, object]]:
    return [{"to": f"user{number}@example.net", "n": number} for number in range(jobs)]


async def enqueue_rate(queue: Queue, jobs: int) -> float:
    """Jobs a second through the public bulk call, in calls of one transaction each."""
    given = payloads(jobs)
    began_s = time.perf_counter()
    for start in range(0, jobs, PART):
        await queue.enqueue_many(KIND, given[start : start + PART])
    return jobs / (time.perf_counter() - began_s)


async def work_rate(worker: Worker, jobs: int) -> float:
    """Jobs a second from the first claim until the store has the last result."""
    began_s = time.perf_counter()
    running = asyncio.create_task(worker.run())
    while worker.settled < jobs:  # noqa: ASYNC110 - the worker has no event for its last job
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - began_s
    worker.drain()
    await running
    return jobs / seconds


@asynccontextmanager
async def worker_on(place: Place, *, concurrency: int = 20) -> AsyncIterator[Worker]:
    settings = WorkerSettings(concurrency=concurrency, buffer=4000)
    async with open_worker(
        place.store, HANDLERS, settings=settings, journals=place.journals
    ) as worker:
        yield worker


async def both_rates(place: Place, jobs: int) -> tuple[float, float]:
    """Enqueues and works off so many jobs; the rates of both.

    Raises:
        AssertionError: The store does not say that all of them are completed.
    """
    async with open_queue(place.store, handlers=HANDLERS) as queue:
        enqueued = await enqueue_rate(queue, jobs)
        async with worker_on(place) as worker:
            worked = await work_rate(worker, jobs)
        figures = {one.queue: one for one in await queue.store.queue_figures()}
        assert figures["default"].counts[JobState.COMPLETED] == jobs
    return enqueued, worked


def cores() -> int:
    return len(os.sched_getaffinity(0))
