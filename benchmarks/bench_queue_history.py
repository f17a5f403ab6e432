"""What the past and other people's transactions cost a claim.

Claims and finishes through the store, with nothing in the tables, then with ten million finished
and a million scheduled jobs; and on PostgreSQL while somebody holds a transaction open, which keeps
every dead row in the way.
"""

import argparse
import asyncio
import sqlite3
import time
from contextlib import closing
from typing import Any

import psycopg
from queue_work import HANDLERS, KIND, Place, enqueue_rate, postgres_place, sqlite_place
from servers import postgres
from stats import Figure, figure, table

from mailrace.jobs import open_queue
from mailrace.queue.flows import Want
from mailrace.queue.jobs import Finished
from mailrace.queue.processes import NewProcess
from mailrace.queue.states import JobState, Step

_BATCH = 500
_SLOWER = 1.2
# A transaction that is open for so long may cost at most half of the speed.
_HELD = 0.5


async def work_rate(store: Any, jobs: int) -> float:
    """Jobs a second, claimed and finished in batches of 500 with nothing in between."""
    process_id = await store.register(NewProcess(journal="bench"), 3600)
    began_s, left = time.perf_counter(), jobs
    while left > 0:
        await store.survey(["default"])
        claimed = await store.claim(process_id, [Want("default", "", 0, _BATCH)])
        if not claimed:
            raise SystemExit("the jobs of the benchmark are not there")
        records = [
            Finished(job.id, job.lease, Step.COMPLETE, JobState.COMPLETED) for job in claimed
        ]
        await store.finish(records)
        left -= len(claimed)
    rate = jobs / (time.perf_counter() - began_s)
    await store.retire(process_id)
    return rate


async def rates(place: Place, jobs: int, runs: int) -> list[float]:
    found: list[float] = []
    async with open_queue(place.store, handlers=HANDLERS) as queue:
        for _ in range(runs):
            await enqueue_rate(queue, jobs)
            found.append(await work_rate(queue.store, jobs))
    return found


async def held_rates(place: Place, seconds: float) -> tuple[list[float], list[float]]:
    """Rates before and while a transaction is held open, ten slices of the time each."""
    jobs = 5 * _BATCH
    async with (
        open_queue(place.store, handlers=HANDLERS) as queue,
        await psycopg.AsyncConnection.connect(place.store) as holder,
    ):
        before: list[float] = []
        for _ in range(10):
            await enqueue_rate(queue, jobs)
            before.append(await work_rate(queue.store, jobs))
        await holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await holder.execute("SELECT count(*) FROM mailrace.jobs")
        began_s, during = time.perf_counter(), []
        while time.perf_counter() - began_s < seconds:
            await enqueue_rate(queue, jobs)
            during.append(await work_rate(queue.store, jobs))
    return before, during[len(during) // 2 :]  # the later half, when most is in the way


def fill_postgres(dsn: str, *, finished: int, scheduled: int) -> None:
    """Puts jobs of the past and of the future straight into the tables."""
    day = "now() - interval '1 hour' * mod(n, 20)"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO mailrace.jobs_completed (id, ended_at, created_at, run_at, lease,"
            " priority, attempt, deaths, snoozes, queue, tenant, kind, reason, detail, payload)"
            f" SELECT nextval('mailrace.job_ids'), {day}, {day}, {day}, n, 0, 1, 0, 0, 'default',"
            " '', %s, '', '', '{\"n\":1}' FROM generate_series(1, %s) AS n",
            (KIND, finished),
        )
        connection.execute(
            "INSERT INTO mailrace.jobs (run_at, state, kind, payload)"
            " SELECT now() + interval '1 day' + n * interval '1 ms', 'scheduled', %s, '{\"n\":1}'"
            " FROM generate_series(1, %s) AS n",
            (KIND, scheduled),
        )
        # Or the server would do both during the measurement.
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def fill_sqlite(path: str, *, finished: int, scheduled: int) -> None:
    """The same for a file."""
    now_ms = int(time.time() * 1000)
    insert = (
        "INSERT INTO jobs (kind, queue, tenant, priority, run_at_ms, state, created_ms, ended_ms,"
        " payload) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :jobs)"
        " SELECT :kind, 'default', '', 0, :run_at_ms + i, :state, :now_ms, :ended_ms, '{\"n\":1}'"
        " FROM n"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        values = {"kind": KIND, "now_ms": now_ms}
        past = {"jobs": finished, "run_at_ms": 0, "state": "completed", "ended_ms": now_ms}
        connection.execute(insert, values | past)
        later_ms = now_ms + 86_400_000
        future = {"jobs": scheduled, "run_at_ms": later_ms, "state": "scheduled", "ended_ms": None}
        connection.execute(insert, values | future)
        connection.execute(
            "UPDATE sequences SET value = (SELECT max(id) FROM jobs) WHERE name = 'job'"
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def measure(
    *, jobs: int = 20_000, runs: int = 5, finished: int = 10_000_000, held_s: float = 60.0
) -> list[Figure]:
    scheduled = finished // 10
    label = f"{finished:,} finished and {scheduled:,} scheduled jobs"
    figures: list[Figure] = []
    with postgres() as server:
        with postgres_place(server) as place:
            empty = asyncio.run(rates(place, jobs, runs))
            fill_postgres(place.store, finished=finished, scheduled=scheduled)
            full = asyncio.run(rates(place, jobs, runs))
        figures.append(_beside(f"PostgreSQL: claim and finish, {label}", full, empty))
        with postgres_place(server) as place:
            before, during = asyncio.run(held_rates(place, held_s))
        figures.append(
            figure(
                f"PostgreSQL: claim and finish, a transaction open for {held_s:.0f} s",
                during,
                "jobs/s",
                beside=("before it", before),
                mark=_HELD,
            )
        )
    with sqlite_place() as place:
        empty = asyncio.run(rates(place, jobs, runs))
        fill_sqlite(place.store.removeprefix("sqlite:///"), finished=finished, scheduled=scheduled)
        full = asyncio.run(rates(place, jobs, runs))
    figures.append(_beside(f"SQLite: claim and finish, {label}", full, empty))
    return figures


def _beside(name: str, full: list[float], empty: list[float]) -> Figure:
    return figure(name, full, "jobs/s", beside=("empty tables", empty), mark=1 / _SLOWER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--finished", type=int, default=10_000_000)
    parser.add_argument("--held", dest="held_s", type=float, default=60.0)
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
