"""The jobs that pools are measured with, and what runs them: one shape for all who are compared."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Generic, TypeAlias, TypeVar

IN_FLIGHT = 1_000
_STEPS_OF_CPU_JOB = 21_000  # about 1 ms with Python 3.11

F = TypeVar("F")
Run: TypeAlias = Callable[[F, int], Coroutine[Any, Any, int]]
Open: TypeAlias = Callable[[int], AbstractAsyncContextManager[Run[F]]]
CoroutineJob: TypeAlias = Callable[[int], Coroutine[Any, Any, int]]
BlockingJob: TypeAlias = Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer(Generic[F]):
    """One way of running many jobs.

    Attributes:
        label: What it is, and what it does not do that a pool does.
        open: Takes the number of workers; what it opens runs `count` jobs of a function and
            returns the sum of their results.
        package: The distribution it needs; `None` for the standard library.
    """

    label: str
    open: Open[F]
    package: str | None = None

    @property
    def installed(self) -> bool:
        return self.package is None or find_spec(self.package) is not None

    async def run(self, function: F, count: int, workers: int) -> int:
        """Opens, runs and closes: the sum of all results."""
        async with self.open(workers) as run:
            return await run(function, count)


async def nothing(number: int) -> int:
    return number


async def wait_1_ms(number: int) -> int:
    await asyncio.sleep(0.001)
    return number


def nothing_blocking(number: int) -> int:
    return number


def block_1_ms(number: int) -> int:
    time.sleep(0.001)
    return number


def compute_1_ms(number: int) -> int:
    value = number
    for step in range(_STEPS_OF_CPU_JOB):
        value = (value * 31 + step) % 65_521
    return number


async def windowed(results: Iterable[Awaitable[int]]) -> int:
    """The sum of all results, awaited oldest first, with a bounded number in flight.

    Up to 1.6 times as fast as to gather chunk after chunk: most are done before they are awaited,
    and no slot is idle while the last of a chunk is waited for.
    """
    total = 0
    in_flight: deque[Awaitable[int]] = deque()
    for result in results:
        in_flight.append(result)
        if len(in_flight) == IN_FLIGHT:
            total += await in_flight.popleft()
    for result in in_flight:
        total += await result
    return total


def chunks(count: int) -> Iterator[range]:
    for first in range(0, count, IN_FLIGHT):
        yield range(first, min(first + IN_FLIGHT, count))
