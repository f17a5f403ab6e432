"""The store on SQLite: one file, one writer thread a process, no server."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import msgspec

from mailrace.clock import Clock
from mailrace.errors import ConflictError, UnavailableError
from mailrace.pool import Schedule
from mailrace.queue.jobs import (
    Batch,
    BatchReport,
    ClaimedJob,
    Finished,
    NewJob,
    ProcessRow,
    Reason,
)
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.database import (
    connect,
    mapped_errors,
    one,
    prepare,
    run,
    statement,
    transaction,
)
from mailrace.queue.stores.sqlite.ledger import shift, write_finished
from mailrace.queue.stores.sqlite.reports import batch_reasons, batch_report

_P = ParamSpec("_P")
_T = TypeVar("_T")
# More slices than there can be processes that hold one.
_SLICES_AHEAD = 64
_CLAIMED = msgspec.json.Decoder(list[tuple[int, int, int, msgspec.Raw]])


class SqliteStore:
    """Durable jobs in one SQLite file; several processes of one machine may share it.

    Every method is one transaction on a thread of its own, synced to disk before it returns.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock) -> None:
        self.path = path
        self._connection = connection
        self._clock = clock
        self._stat = path.stat()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailrace-store")

    @classmethod
    def open(cls, path: Path, clock: Clock) -> Self:
        """Opens or makes the file and brings its schema up to date.

        Raises:
            MisuseError: The path leads nowhere, or to something that is no store.
        """
        connection = connect(path)
        try:
            with mapped_errors(path):
                prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, clock)

    async def open_batch(self, name: str, kind: str, spec: bytes) -> Batch:
        return await self._write(self._open_batch, name, kind, spec)

    def _open_batch(self, name: str, kind: str, spec: bytes) -> Batch:
        added = run(
            self._connection, "batch_insert",
            name=name, kind=kind, spec=spec.decode(), now_ms=self._now_ms(),
        )  # fmt: skip
        row = self._connection.execute(statement("batch_select"), {"name": name}).fetchone()
        if added:
            for state in JobState:
                run(self._connection, "counts_open", batch_id=row[0], state=state.value)
        return Batch(id=row[0], name=row[1], kind=row[2], spec=_raw(row[3]), created=bool(added))

    async def enqueue(self, batch_id: int, jobs: Sequence[NewJob]) -> int:
        rows = msgspec.json.encode([(job.key, job.payload) for job in jobs])
        return await self._write(self._enqueue, batch_id, rows.decode())

    def _enqueue(self, batch_id: int, rows: str) -> int:
        first_id = one(self._connection, "job_last_id") + 1
        added = run(self._connection, "job_insert", first_id=first_id, batch_id=batch_id, jobs=rows)
        run(self._connection, "payload_insert", first_id=first_id, jobs=rows)
        shift(self._connection, batch_id, JobState.AVAILABLE, added)
        return added

    async def register(self, journal: str, lease_s: float) -> int:
        return await self._write(self._register, journal, lease_s)

    def _register(self, journal: str, lease_s: float) -> int:
        process_id: int = one(
            self._connection, "process_insert",
            journal=journal, expires_ms=self._now_ms() + int(lease_s * 1000),
        )  # fmt: skip
        return process_id

    def renewer(self, process_id: int, lease_s: float) -> Callable[[], bool]:
        def renew() -> bool:
            # A connection of its own, for a moment: the writer thread may be busy.
            self._check_there()
            connection = connect(self.path)
            try:
                with mapped_errors(self.path):
                    expires_ms = self._now_ms() + int(lease_s * 1000)
                    known = run(
                        connection, "process_renew", process_id=process_id, expires_ms=expires_ms
                    )
                    return known == 1
            finally:
                connection.close()

        return renew

    async def processes(self) -> list[ProcessRow]:
        return await self._read(self._processes)

    def _processes(self) -> list[ProcessRow]:
        rows = self._connection.execute(statement("process_select"))
        return [ProcessRow(id=row[0], journal=row[1], expires_ms=row[2]) for row in rows]

    async def claim(self, process_id: int, batch_id: int, limit: int) -> list[ClaimedJob]:
        rows = await self._write(self._claim, process_id, batch_id, limit)
        return [ClaimedJob(*row) for row in _CLAIMED.decode(rows)]

    def _claim(self, process_id: int, batch_id: int, limit: int) -> str:
        if one(self._connection, "process_known", process_id=process_id) is None:
            raise ConflictError("this process has lost its leases")
        connection = self._connection
        due = run(connection, "stage", batch_id=batch_id, now_ms=self._now_ms(), limit=limit)
        lease = one(connection, "lease_next")
        taken = run(
            connection, "claim", lease=lease, process_id=process_id, batch_id=batch_id, limit=limit
        )
        if not taken:
            return "[]"  # nothing written, so nothing to sync: idle processes ask often
        run(connection, "lease_take", lease=lease)
        shift(connection, batch_id, JobState.RETRYABLE, -due)
        shift(connection, batch_id, JobState.AVAILABLE, due - taken)
        shift(connection, batch_id, JobState.RUNNING, taken)
        claimed: str = one(connection, "claimed", process_id=process_id, lease=lease)
        return claimed

    async def finish(self, records: Sequence[Finished]) -> int:
        return await self._write(write_finished, self._connection, records)

    async def rescue(
        self, process: ProcessRow, records: Sequence[Finished], *, rest: Finished
    ) -> int | None:
        return await self._write(self._rescue, process, records, rest)

    def _rescue(
        self, process: ProcessRow, records: Sequence[Finished], rest: Finished
    ) -> int | None:
        gone = run(
            self._connection, "process_delete",
            process_id=process.id, expires_ms=process.expires_ms,
        )  # fmt: skip
        if not gone:
            return None
        write_finished(self._connection, records)
        held = self._connection.execute(statement("held_by"), {"process_id": process.id})
        left = [
            msgspec.structs.replace(rest, id=job_id, lease=lease)
            for job_id, lease in held.fetchall()
        ]
        write_finished(self._connection, left)
        return len(left)

    async def retire(self, process_id: int) -> bool:
        return await self._write(self._retire, process_id)

    def _retire(self, process_id: int) -> bool:
        run(self._connection, "process_retire", process_id=process_id)
        return one(self._connection, "process_known", process_id=process_id) is None

    async def resend(self, batch_id: int) -> int:
        return await self._write(self._resend, batch_id)

    def _resend(self, batch_id: int) -> int:
        again = run(self._connection, "resend", batch_id=batch_id)
        shift(self._connection, batch_id, JobState.UNCERTAIN, -again)
        shift(self._connection, batch_id, JobState.AVAILABLE, again)
        return again

    async def report(self, batch_id: int) -> BatchReport:
        return await self._read(batch_report, self._connection, batch_id)

    async def reasons(self, batch_id: int) -> list[Reason]:
        return await self._read(batch_reasons, self._connection, batch_id)

    async def batches(self) -> list[Batch]:
        return await self._read(self._batches)

    def _batches(self) -> list[Batch]:
        rows = self._connection.execute(statement("batch_list"))
        return [
            Batch(id=row[0], name=row[1], kind=row[2], spec=_raw(row[3]), created=False)
            for row in rows
        ]

    async def take_slots(self, limit: str, schedule: Schedule, slots: int) -> float:
        return await self._write(self._take_slots, limit, schedule, slots)

    def _take_slots(self, limit: str, schedule: Schedule, slots: int) -> float:
        now_s = self._clock.unix_s()
        next_s = (one(self._connection, "limit_select", name=limit) or 0) / 1e6
        if next_s - now_s > _SLICES_AHEAD * slots * schedule.interval_s:
            next_s = now_s  # it was taken by another clock, or under a slower rate
        first_s, next_s = schedule.take(next_s, from_s=now_s, slots=slots)
        run(self._connection, "limit_update", name=limit, next_slot_us=int(next_s * 1e6))
        return first_s

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    async def _write(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def in_transaction() -> _T:
            self._check_there()
            with mapped_errors(self.path), transaction(self._connection):
                return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_transaction)

    async def _read(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def on_snapshot() -> _T:
            with mapped_errors(self.path):
                self._connection.execute("BEGIN")
                try:
                    return work(*args, **kwargs)
                finally:
                    self._connection.execute("COMMIT")

        return await asyncio.get_running_loop().run_in_executor(self._thread, on_snapshot)

    def _check_there(self) -> None:
        """Refuses to go on in a file that nobody will find again."""
        try:
            same = os.path.samestat(self.path.stat(), self._stat)
        except FileNotFoundError:
            same = False
        if not same:
            raise UnavailableError(
                f"the store {self.path} was removed or replaced while in use",
                hint="put it back; without it nobody knows who was written to",
            )

    def _now_ms(self) -> int:
        return int(self._clock.unix_s() * 1000)


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())
