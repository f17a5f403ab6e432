"""What every script in this folder shares: arguments, payload, counting and the line it prints.

A script enqueues its jobs through the bulk call of its peer where there is one, and lets one
worker process work them off: from the worker's start, or from its being ready where it is another
process, until the store has nothing left that is not done.

Only the standard library is used here, as each script has an environment of its own. A script has
the name of the library it imports, so it needs PYTHONSAFEPATH=1, and the folder above this one in
PYTHONPATH: `peers_of_queue.py` sets both.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeVar

LIMIT_S = 60

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a script is asked to do.

    Attributes:
        jobs: How many jobs to put in and work off.
        postgres: Address of an empty database; empty if it is not to be used.
        redis: Address of an empty Valkey; empty if it is not to be used.
        sqlite: File of a database that is not there yet; empty if it is not to be used.
        worker: Where the other process of a peer writes its times; empty in the script itself.
    """

    jobs: int
    postgres: str
    redis: str
    sqlite: str
    worker: str

    @property
    def store(self) -> str:
        if self.postgres:
            return "postgresql"
        return "sqlite" if self.sqlite else "valkey"


def asked() -> Task:
    """Reads the arguments; from here on the process has `LIMIT_S` to live."""
    signal.alarm(LIMIT_S)
    parser = argparse.ArgumentParser(description="Enqueues jobs, works them off, prints the rates.")
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--postgres", default="", metavar="DSN")
    parser.add_argument("--redis", default="", metavar="URL")
    parser.add_argument("--sqlite", default="", metavar="FILE")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return Task(**vars(parser.parse_args()))


def payload(number: int) -> dict[str, Any]:
    """The arguments of one job: what a mail of a campaign would carry."""
    return {"campaign": "spring", "recipient": number, "address": f"person{number}@example.com"}


class Progress:
    """Counts the jobs that ran, in any number of threads, and tells of the last.

    Attributes:
        all_ran: Whether that has happened.
    """

    def __init__(self, jobs: int, *, at_end: Callable[[], object] = lambda: None) -> None:
        self.all_ran = False
        self._last = jobs - 1
        self._at_end = at_end
        self._numbers = itertools.count()

    def ran(self) -> None:
        """Notes that a job ran; `next` on a counter is one step for all threads."""
        if next(self._numbers) == self._last:
            self.all_ran = True
            self._at_end()


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._began_s


def report(peer: str, task: Task, *, enqueue_s: float, work_s: float, note: str) -> None:
    """Prints the one line that the driver reads."""
    line = {
        "peer": peer,
        "version": version(peer),
        "store": task.store,
        "enqueued_per_s": round(task.jobs / enqueue_s, 1),
        "completed_per_s": round(task.jobs / work_s, 1),
        "note": note,
    }
    print(json.dumps(line), flush=True)


def leave() -> None:
    """Ends the process without waiting for a peer's threads."""
    sys.stdout.flush()
    os._exit(0)


def library(name: str) -> Any:
    """A peer, or a part of it: its types are not asked for, as only its script has it."""
    return import_module(name)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a script of coroutines on the fastest loop."""
    library("uvloop").run(main)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


async def by_many(call: Callable[[int], Awaitable[object]], count: int, *, at_once: int) -> None:
    """Awaits `call` with each number below `count`, `at_once` of them at a time."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(caller() for _ in range(at_once)))


async def until(is_done: Callable[[], Awaitable[bool]], *, pause_s: float = 0.005) -> None:
    """Waits until the store itself says that nothing is left to do."""
    while not await is_done():  # noqa: ASYNC110 - nothing in this process tells of it
        await asyncio.sleep(pause_s)
