"""Where the queue's tests keep their jobs: stores, and a way to look behind them."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import psycopg

from mailrace.queue import ClaimedJob, JobState, NewJob, Step, Store
from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobs import Finished
from mailrace.queue.processes import NewProcess, ProcessRow
from mailrace.queue.states import after
from mailrace.queue.storedpayloads import StoredPayload
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.migrate import migrate
from mailrace.queue.stores.sqlite import SqliteStore
from tests.support.clock import VirtualClock
from tests.support.postgres import Databases

LEASE_S = 30.0


class AttemptRow(NamedTuple):
    """An attempt as the store keeps it; `key` is the text in the payload of its job."""

    key: str
    lease: int
    attempt: int
    step: str


class House(Protocol):
    """Where processes share jobs: each opens a store, and the test may look behind them."""

    clock: VirtualClock

    async def opened(self) -> Store:
        """A store that is closed with the house."""
        ...

    async def make(self) -> Store:
        """A store that the caller closes."""
        ...

    def states(self, batch_id: int) -> dict[str, JobState]: ...

    def attempts(self, batch_id: int) -> list[AttemptRow]: ...

    def everything(self) -> dict[int, JobState]:
        """All jobs by id."""
        ...

    async def close(self) -> None: ...


class SqliteHouse:
    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.path = folder / "jobs.db"
        self.clock = clock
        self._opened: list[SqliteStore] = []

    def open(self) -> SqliteStore:
        self._opened.append(SqliteStore.open(self.path, self.clock))
        return self._opened[-1]

    async def opened(self) -> SqliteStore:
        return self.open()

    async def make(self) -> SqliteStore:
        return SqliteStore.open(self.path, self.clock)

    def states(self, batch_id: int) -> dict[str, JobState]:
        rows = self.select(
            "SELECT json_extract(payload, '$.to'), state FROM jobs WHERE batch_id = ?",
            batch_id,
        )
        return {key: JobState(state) for key, state in rows}

    def attempts(self, batch_id: int) -> list[AttemptRow]:
        rows = self.select(
            "SELECT json_extract(payload, '$.to'), a.lease, a.attempt, a.step FROM attempts AS a"
            " JOIN jobs ON id = job_id WHERE batch_id = ? ORDER BY a.lease, id",
            batch_id,
        )
        return [AttemptRow(*row) for row in rows]

    def everything(self) -> dict[int, JobState]:
        return {job: JobState(state) for job, state in self.select("SELECT id, state FROM jobs")}

    def select(self, sql: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


_ALL_JOBS = """
    WITH everything AS (
        SELECT id, batch_id, state::text, payload FROM mailrace.jobs
        UNION ALL SELECT id, batch_id, 'completed', payload FROM mailrace.jobs_completed
        UNION ALL SELECT id, batch_id, state::text, payload FROM mailrace.jobs_ended
    )
"""


class PostgresHouse:
    """One of many in one database, one after another.

    Args:
        behind: A connection of the house's own, to look behind the stores.
    """

    def __init__(self, dsn: str, behind: psycopg.Connection, clock: VirtualClock) -> None:
        self.dsn = dsn
        self.clock = clock
        self._behind = behind
        self._opened: list[PostgresStore] = []

    async def opened(self) -> PostgresStore:
        self._opened.append(await self.make())
        return self._opened[-1]

    async def make(self) -> PostgresStore:
        return await PostgresStore.open(self.dsn, self.clock)

    def states(self, batch_id: int) -> dict[str, JobState]:
        rows = self.select(
            f"{_ALL_JOBS} SELECT payload ->> 'to', state FROM everything WHERE batch_id = %s",
            batch_id,
        )
        return {key: JobState(state) for key, state in rows}

    def attempts(self, batch_id: int) -> list[AttemptRow]:
        rows = self.select(
            f"{_ALL_JOBS} SELECT payload ->> 'to', lease, attempt, step FROM mailrace.attempts"
            " JOIN everything ON id = job_id WHERE batch_id = %s ORDER BY lease, job_id",
            batch_id,
        )
        return [AttemptRow(*row) for row in rows]

    def everything(self) -> dict[int, JobState]:
        rows = self.select(f"{_ALL_JOBS} SELECT id, state FROM everything")
        assert len(rows) == len({job for job, _ in rows}), "a job stands in two tables"
        return {job: JobState(state) for job, state in rows}

    def select(self, sql: str, *values: object) -> list[Any]:
        return self._behind.execute(sql.encode(), values).fetchall()

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


class Estate(Protocol):
    """Builds houses of one kind, each empty; the one before must be closed by then."""

    name: str

    def house(self, clock: VirtualClock | None = None) -> House: ...


class SqliteEstate:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built = 0

    def house(self, clock: VirtualClock | None = None) -> SqliteHouse:
        self._built += 1
        folder = self._folder / f"house-{self._built}"
        folder.mkdir()
        return SqliteHouse(folder, clock or VirtualClock())


class PostgresEstate:
    """One migrated database for all houses: emptying it takes 3 ms, making one 100 ms."""

    name = "postgres"

    def __init__(self, dsn: str, connection: psycopg.Connection) -> None:
        self._dsn = dsn
        self._connection = connection
        # What the migrations themselves left, such as their own number, belongs to the schema.
        self._emptied = b";".join(
            b"DELETE FROM mailrace.%s" % table.encode()
            for (table,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'mailrace'::regnamespace"
                " AND relkind IN ('r', 'p') AND NOT relispartition"
            ).fetchall()
            if not connection.execute(b"SELECT FROM mailrace.%s" % table.encode()).fetchall()
        )

    @classmethod
    @contextmanager
    def on(cls, databases: Databases) -> Iterator["PostgresEstate"]:
        with databases.fresh_database() as dsn:
            migrate(dsn)
            with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
                yield cls(dsn, connection)

    def house(self, clock: VirtualClock | None = None) -> PostgresHouse:
        self._connection.execute(self._emptied)
        return PostgresHouse(self._dsn, self._connection, clock or VirtualClock())


# Jobs as the tests make them


def new(*keys: str, batch_id: int | None = None, **fields: Any) -> list[NewJob]:
    """Jobs of the kind `kind` to these keys; those of a batch once each, in its own queue."""
    if batch_id is not None:
        fields = {"queue": f"batch:{batch_id}", "batch_id": batch_id} | fields
    return [
        NewJob(
            payload=msgspec.Raw(msgspec.json.encode({"to": key})),
            **{
                "kind": "kind",
                "idempotency": None if batch_id is None else f"{batch_id}:{key}",
                **fields,
            },
        )
        for key in keys
    ]


async def fill(store: Store, jobs: int, name: str = "batch") -> int:
    """Opens a batch with so many jobs `k000` …, and returns its id."""
    batch = await store.open_batch(name, "kind", b"{}")
    keys = [f"k{number:03}" for number in range(jobs)]
    await store.enqueue(new(*keys, batch_id=batch.id))
    return batch.id


async def add(store: Store, *keys: str, **fields: Any) -> list[int]:
    """Enqueues jobs to these keys and returns their ids."""
    return [answer.id for answer in await store.enqueue(new(*keys, **fields))]


async def enter(store: Store, journal: str = "journal", lease_s: float = LEASE_S) -> int:
    """Registers a process of which nothing matters but its journal."""
    return await store.register(NewProcess(journal=journal), lease_s)


async def process_row(store: Store, process_id: int) -> ProcessRow:
    return next(row for row in await store.processes() if row.id == process_id)


async def claim_all(store: Store, process_id: int, queue: str, jobs: int) -> list[ClaimedJob]:
    """Takes up to so many due jobs of a queue, flow by flow, the higher priority first."""
    flows = [flow for flow in await store.survey([queue]) if flow.waited_ms >= 0]
    return await claim_flows(store, process_id, sorted(flows, key=_by_priority), jobs)


async def claim_flows(
    store: Store, process_id: int, flows: Sequence[Flow], jobs: int
) -> list[ClaimedJob]:
    claimed: list[ClaimedJob] = []
    for flow in flows:
        if left := jobs - len(claimed):
            want = Want(flow.queue, flow.tenant, flow.priority, left)
            claimed += await store.claim(process_id, [want])
    return claimed


def _by_priority(flow: Flow) -> tuple[int, int]:
    return (-flow.priority, -flow.waited_ms)


async def claim_of(
    store: Store, process_id: int, jobs: int = 10, queue: str = "default", **flow: Any
) -> list[ClaimedJob]:
    """Takes jobs of one flow: of no tenant and priority 0 unless it says otherwise."""
    want = Want(queue, flow.pop("tenant", ""), flow.pop("priority", 0), jobs)
    return await store.claim(process_id, [want], **flow)


def ended(
    jobs: Sequence[ClaimedJob],
    step: Step = Step.COMPLETE,
    *,
    delay_ms: int | None = None,
    reason: str = "reason",
    detail: str = "detail",
    at_ms: int = 1_800_000_000_000,
    category: str = "",
    result: msgspec.Raw | None = None,
) -> list[Finished]:
    """How these claims ended; a delay is only for steps that have one."""
    delay_ms = (delay_ms or 0) if step in {Step.RETRY, Step.SNOOZE} else None
    state = after(JobState.RUNNING, step)
    return [
        Finished(job.id, job.lease, step, state, delay_ms, reason, detail, at_ms, category, result)
        for job in jobs
    ]


async def all_payloads(store: Store, *, limit: int = 500) -> list[StoredPayload]:
    """Those of all jobs, asked for page by page."""
    found: list[StoredPayload] = []
    while page := await store.payloads(found[-1].id if found else 0, limit=limit):
        assert len(page) <= limit
        found += page
    return found


async def counts(store: Store, batch_id: int) -> dict[JobState, int]:
    """The counts that are not zero."""
    return some((await store.report(batch_id)).counts)


async def queue_counts(store: Store, queue: str = "default") -> dict[JobState, int]:
    """The counts of a queue that are not zero."""
    found = [figures for figures in await store.queue_figures() if figures.queue == queue]
    assert len(found) <= 1
    return some(found[0].counts) if found else {}


def some(jobs: dict[JobState, int]) -> dict[JobState, int]:
    assert set(jobs) == set(JobState)
    return {state: number for state, number in jobs.items() if number}


def now_ms(house: House) -> int:
    return int(house.clock.unix_s() * 1000)


def numbered(prefix: str, jobs: int) -> Iterator[str]:
    return (f"{prefix}{number:04}" for number in range(jobs))
