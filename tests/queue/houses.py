"""Where the queue's tests keep their jobs: stores, and a way to look behind them."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from mailrace.queue import ClaimedJob, JobState, NewJob, Step, Store
from mailrace.queue.jobs import Finished
from mailrace.queue.states import after
from mailrace.queue.stores.sqlite import SqliteStore
from tests.support.clock import VirtualClock


class AttemptRow(NamedTuple):
    """An attempt as the store keeps it."""

    key: str
    lease: int
    attempt: int
    step: str


class House(Protocol):
    """Where processes share jobs: each opens a store, and the test may look behind them."""

    clock: VirtualClock

    def open(self) -> Store: ...

    def states(self, batch_id: int) -> dict[str, JobState]: ...

    def attempts(self, batch_id: int) -> list[AttemptRow]: ...


class SqliteHouse:
    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.path = folder / "jobs.db"
        self.clock = clock
        self._opened: list[SqliteStore] = []

    def open(self) -> SqliteStore:
        self._opened.append(SqliteStore.open(self.path, self.clock))
        return self._opened[-1]

    def states(self, batch_id: int) -> dict[str, JobState]:
        rows = self.select("SELECT key, state FROM jobs WHERE batch_id = ?", batch_id)
        return {key: JobState(state) for key, state in rows}

    def attempts(self, batch_id: int) -> list[AttemptRow]:
        rows = self.select(
            "SELECT key, a.lease, a.attempt, a.step FROM attempts AS a JOIN jobs ON id = job_id"
            " WHERE batch_id = ? ORDER BY a.lease, job_id",
            batch_id,
        )
        return [AttemptRow(*row) for row in rows]

    def select(self, sql: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


def new(*keys: str) -> list[NewJob]:
    return [NewJob(key, msgspec.Raw(msgspec.json.encode({"to": key}))) for key in keys]


async def fill(store: Store, jobs: int, name: str = "batch") -> int:
    """Opens a batch with so many jobs `k000` …, and returns its id."""
    batch = await store.open_batch(name, "kind", b"{}")
    await store.enqueue(batch.id, new(*(f"k{number:03}" for number in range(jobs))))
    return batch.id


def ended(
    jobs: Sequence[ClaimedJob],
    step: Step = Step.COMPLETE,
    *,
    run_at_ms: int | None = None,
    reason: str = "reason",
    detail: str = "detail",
    at_ms: int = 1_800_000_000_000,
) -> list[Finished]:
    state = after(JobState.RUNNING, step)
    return [
        Finished(job.id, job.lease, step, state, run_at_ms, reason, detail, at_ms) for job in jobs
    ]


async def counts(store: Store, batch_id: int) -> dict[JobState, int]:
    """The counts that are not zero."""
    report = await store.report(batch_id)
    return {state: jobs for state, jobs in report.counts.items() if jobs}
