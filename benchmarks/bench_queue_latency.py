"""How long a job waits between its enqueue and the start of its handler.

Another process enqueues at a steady rate, half of what one worker process does (`bench_queue.py`),
in small calls a hundredth of a second apart. The time is from before the enqueue call, so that it
holds the commit, the wake-up, the claim and the wait for a worker.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from limits import at_most
from queue_producer import KIND
from queue_work import Place, postgres_place, sqlite_place
from servers import postgres
from stats import Figure, table

from mailrace.jobs import Handlers, WorkerSettings, open_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_PRODUCER = Path(__file__).resolve().parent / "queue_producer.py"
# Half of the marks of bench_queue.
_RATES = {"PostgreSQL": 15_000, "SQLite": 30_000}
_MOST_MS = 20.0
_WARM_UP_S = 1.0


def measure(*, runs: int = 3, seconds: float = 5.0) -> list[Figure]:
    waits: dict[str, list[tuple[float, float]]] = {name: [] for name in _RATES}
    with postgres() as server:
        places: dict[str, Callable[[], AbstractContextManager[Place]]] = {
            "PostgreSQL": lambda: postgres_place(server),
            "SQLite": sqlite_place,
        }
        for _ in range(runs):
            for name, place in places.items():
                with place() as found:
                    waits[name].append(asyncio.run(_waits_ms(found, _RATES[name], seconds)))
    figures: list[Figure] = []
    for name, pairs in waits.items():
        what = f"{name}: enqueue to start, {_RATES[name]:,} jobs/s"
        halves, ends = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        figures += [
            at_most(f"{what}, p50", halves, "ms", _MOST_MS, promised=False),
            at_most(f"{what}, p99", ends, "ms", _MOST_MS),
        ]
    return figures


async def _waits_ms(place: Place, rate: float, seconds: float) -> tuple[float, float]:
    """Median and 99th percentile, without the first second."""
    waits_ms: list[float] = []
    handlers = Handlers()

    async def note(payload: dict[str, float]) -> None:
        waits_ms.append((time.time() - payload["at"]) * 1000)

    handlers.add(KIND, note)
    settings = WorkerSettings(concurrency=20, buffer=2000)
    async with open_worker(
        place.store, handlers, settings=settings, journals=place.journals
    ) as worker:
        running = asyncio.create_task(worker.run())
        given = await _produce(place.store, rate, seconds + _WARM_UP_S)
        while worker.settled < given:  # noqa: ASYNC110 - the worker has no event for its last job
            await asyncio.sleep(0.01)
        worker.drain()
        await running
    steady = waits_ms[int(len(waits_ms) * _WARM_UP_S / (seconds + _WARM_UP_S)) :]
    return statistics.median(steady), statistics.quantiles(steady, n=100)[98]


async def _produce(store: str, rate: float, seconds: float) -> int:
    words = [str(_PRODUCER), store, f"--rate={rate}", f"--seconds={seconds}"]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        sys.exit(f"the producer ended with {process.returncode}")
    return int(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
