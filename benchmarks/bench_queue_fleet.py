"""Many worker processes on one PostgreSQL: connections, deadlocks, and what they do together."""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from limits import at_most
from queue_work import HANDLERS, Place, enqueue_rate, postgres_place
from servers import postgres
from stats import Figure, figure, table

from mailrace.jobs import open_queue
from mailrace.queue.states import JobState

_PROCESS = Path(__file__).resolve().parent / "queue_process.py"
# One listens, one renews the lease, three work: docs/operations.md.
_CONNECTIONS = 5
_LIMIT_S = 120.0


async def fleet_rate(place: Place, processes: int, jobs: int) -> tuple[float, int, int]:
    """Jobs a second, connections at the busiest moment, deadlocks."""
    started = [await _start(place) for _ in range(processes)]
    async with (
        open_queue(place.store, handlers=HANDLERS) as queue,
        await psycopg.AsyncConnection.connect(place.store, autocommit=True) as looking,
    ):
        for process in started:
            assert process.stdout is not None
            await process.stdout.readline()
        await queue.pause("default")
        await enqueue_rate(queue, jobs)
        before, _ = await _seen(looking)
        await queue.resume("default")
        began_s, most, done = time.perf_counter(), before, 0
        while done < jobs and time.perf_counter() - began_s < _LIMIT_S:
            await asyncio.sleep(0.02)
            (figures,) = await queue.store.queue_figures()
            done = figures.counts[JobState.COMPLETED]
            most = max(most, (await _seen(looking))[0])
        seconds = time.perf_counter() - began_s
        deadlocks = (await _seen(looking))[1]
    for process in started:
        await process.communicate(b"")  # the end of its input is the end of its work
    return done / seconds, most, deadlocks


async def _start(place: Place) -> asyncio.subprocess.Process:
    words = [str(_PROCESS), place.store, place.journals]
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


async def _seen(connection: psycopg.AsyncConnection) -> tuple[int, int]:
    """Connections of worker processes, and deadlocks so far."""
    cursor = await connection.execute(
        "SELECT count(*) FILTER (WHERE application_name LIKE 'mailrace%%'),"
        " (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database())"
        " FROM pg_stat_activity WHERE datname = current_database()"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def measure(*, runs: int = 3, jobs: int = 60_000, processes: int = 20) -> list[Figure]:
    one: list[float] = []
    many: list[float] = []
    connections: list[float] = []
    deadlocks: list[float] = []
    with postgres() as server:
        for _ in range(runs):
            with postgres_place(server) as place:
                one.append(asyncio.run(fleet_rate(place, 1, jobs))[0])
            with postgres_place(server) as place:
                rate, most, stuck = asyncio.run(fleet_rate(place, processes, jobs))
            many.append(rate)
            connections.append(most)
            deadlocks.append(stuck)
    name = f"PostgreSQL: {processes} worker processes"
    most_allowed = (processes + 1) * _CONNECTIONS
    return [
        figure(f"{name}, jobs/s", many, "jobs/s", beside=("one process", one), mark=1),
        at_most(f"{name}, connections", connections, "connections", most_allowed),
        at_most(f"{name}, deadlocks", deadlocks, "deadlocks", 0.5),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=60_000)
    parser.add_argument("--processes", type=int, default=20)
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
