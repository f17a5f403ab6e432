"""Jobs a second of the pool, beside asyncio alone, the executors and the libraries.

Everything goes through submit to the awaited result. What one writes by hand with asyncio has no
ledger, no bound, no timeout and no cancel: it is shown, and nothing was promised about it.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from loops import LOOPS, loop_factory
from pool_jobs import (
    IN_FLIGHT,
    Peer,
    Run,
    block_1_ms,
    compute_1_ms,
    nothing,
    nothing_blocking,
    wait_1_ms,
)
from pool_peers import (
    ASYNCIO_ALONE,
    LIBRARIES,
    PEERS,
    PROCESS_PEERS,
    THREAD_PEERS,
    missing,
    versions,
)
from stats import Figure, figure, interleaved, table

from mailrace.pool import Kind, Pool

PROCESSES = 2
JOBS_PER_S_MARK = 200_000
_LIBRARY_MARK = 2.0
_EXECUTOR = ("run_in_executor",)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[F]):
    """One kind of job and those who run it.

    Attributes:
        kind: Where the pool runs it.
        peers: What the pool is compared with.
        groups: Names of those of which the best counts, by what they are together.
        counts: The number of jobs for each number of workers.
        mark: Jobs a second that are good enough, if that was promised.
        library_mark: How many times as fast as the best library the pool has to be.
    """

    name: str
    function: F
    kind: Kind
    peers: Mapping[str, Peer[F]]
    groups: Mapping[str, Sequence[str]]
    counts: Mapping[int, int]
    mark: float | None = None
    library_mark: float | None = None


@asynccontextmanager
async def pooled(kind: Kind, workers: int) -> AsyncIterator[Run[Any]]:
    """Submits one job after the other, and awaits the oldest."""
    async with Pool(workers=workers, queue_size=IN_FLIGHT) as pool:
        submit = pool.options(kind=kind).submit if kind is Kind.PROCESS else pool.submit

        async def run(function: Callable[[int], Any], count: int) -> int:
            total = 0
            window: deque[Any] = deque()
            for number in range(count):
                if len(window) == IN_FLIGHT:
                    total += await window.popleft()
                window.append(await submit(function, number))
            for job in window:
                total += await job
            return total

        yield run


@asynccontextmanager
async def mapped(kind: Kind, workers: int) -> AsyncIterator[Run[Any]]:
    """Hands everything to `map`, which awaits the oldest as well."""
    # In flight are as many as the queue and the workers hold.
    async with Pool(workers=workers, queue_size=IN_FLIGHT) as pool:
        view = pool.options(kind=kind) if kind is Kind.PROCESS else pool

        async def run(function: Callable[[int], Any], count: int) -> int:
            total = 0
            async for result in view.map(function, range(count)):
                total += result
            return total

        yield run


def ours(kind: Kind) -> dict[str, Peer[Any]]:
    """The pool, in the shape of its peers."""
    return {
        "pool": Peer(label="Pool, submit and await", open=partial(pooled, kind)),
        "pool.map": Peer(label="Pool, map", open=partial(mapped, kind)),
    }


ON_LOOP = {"asyncio alone": ASYNCIO_ALONE, "best library": LIBRARIES}
CASES: tuple[Case[Any], ...] = (
    Case(
        name="no-op",
        function=nothing,
        kind=Kind.LOOP,
        peers=PEERS,
        groups=ON_LOOP,
        counts={10: 20_000, 1_000: 20_000},
        mark=JOBS_PER_S_MARK,
        library_mark=_LIBRARY_MARK,
    ),
    Case(
        name="1 ms",
        function=wait_1_ms,
        kind=Kind.LOOP,
        peers=PEERS,
        groups=ON_LOOP,
        counts={10: 3_000, 1_000: 20_000},
    ),
    Case(
        name="blocking no-op",
        function=nothing_blocking,
        kind=Kind.THREAD,
        peers=THREAD_PEERS,
        groups={"run_in_executor": _EXECUTOR, "ThreadPoolExecutor": tuple(THREAD_PEERS)},
        counts={10: 10_000, 1_000: 10_000},
    ),
    Case(
        name="blocking 1 ms",
        function=block_1_ms,
        kind=Kind.THREAD,
        peers=THREAD_PEERS,
        groups={"run_in_executor": _EXECUTOR, "ThreadPoolExecutor": tuple(THREAD_PEERS)},
        counts={10: 3_000, 1_000: 10_000},
    ),
    Case(
        name="CPU 1 ms",
        function=compute_1_ms,
        kind=Kind.PROCESS,
        peers=PROCESS_PEERS,
        groups={"run_in_executor": _EXECUTOR, "ProcessPoolExecutor": tuple(PROCESS_PEERS)},
        counts={PROCESSES: 1_000},
    ),
)


def rate(peer: Peer[F], function: F, *, count: int, workers: int, loop: str) -> float:
    """Jobs a second of one peer, after a quarter as many that nobody counts.

    Raises:
        RuntimeError: The sum of the results is not that of the numbers that went in.
    """

    async def timed() -> float:
        async with peer.open(workers) as run:
            await run(function, count // 4)
            begin = time.perf_counter()
            total = await run(function, count)
            seconds = time.perf_counter() - begin
        if total != count * (count - 1) // 2:
            raise RuntimeError(f"{peer.label} lost results: the sum is {total}")
        return count / seconds

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(timed())


def best(values: Mapping[str, Sequence[float]], names: Iterable[str]) -> str | None:
    """The one of `names` with the highest median, of those that were measured."""
    measured = [name for name in names if name in values]
    return max(measured, key=lambda name: statistics.median(values[name]), default=None)


def measure_case(case: Case[F], *, workers: int, loop: str, runs: int) -> list[Figure]:
    """The pool and all installed peers in turn."""
    peers = {name: peer for name, peer in case.peers.items() if peer.installed}
    contestants = {**ours(case.kind), **{f"peer {name}": peer for name, peer in peers.items()}}
    count = case.counts[workers]
    all_values = interleaved(
        {
            name: partial(rate, peer, case.function, count=count, workers=workers, loop=loop)
            for name, peer in contestants.items()
        },
        runs,
    )
    place = f"{case.name}, {workers:,} workers, {loop}"
    values = {name: all_values[f"peer {name}"] for name in peers}
    figures = [
        figure(f"{place}: Pool, submit and await", all_values["pool"], "jobs/s", mark=case.mark),
        figure(f"{place}: Pool, map", all_values["pool.map"], "jobs/s"),
    ]
    for group, names in case.groups.items():
        if (name := best(values, names)) is not None:
            figures.append(
                figure(
                    f"{place}: Pool beside {group}",
                    all_values["pool"],
                    "jobs/s",
                    beside=(name, values[name]),
                    mark=case.library_mark if group == "best library" else None,
                )
            )
    return figures + [
        figure(f"{place}: {peer.label}", values[name], "jobs/s") for name, peer in peers.items()
    ]


def measure(
    *, runs: int = 5, loops: Iterable[str] | None = None, cases: Iterable[Case[Any]] = CASES
) -> list[Figure]:
    """Every case on every loop."""
    figures: list[Figure] = []
    for case in cases:
        for workers in case.counts:
            for loop in loops or installed_loops():
                print(f"measuring {case.name}, {workers:,} workers, {loop} ...", file=sys.stderr)
                figures += measure_case(case, workers=workers, loop=loop, runs=runs)
    return figures


def installed_loops() -> list[str]:
    return [loop for loop in LOOPS if loop == "asyncio" or find_spec(loop) is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop", choices=LOOPS, action="append", help="each loop if not given")
    parser.add_argument("--case", choices=[case.name for case in CASES], action="append")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.case is None or case.name in arguments.case]
    print(", ".join(versions()))
    if absent := missing():
        print(f"not installed, so not measured: {', '.join(absent)}")
    print(table(measure(runs=arguments.runs, loops=arguments.loop, cases=cases)))


if __name__ == "__main__":
    main()
