"""Where jobs come into the SQLite store."""

import sqlite3
from collections.abc import Sequence

import msgspec

from mailrace.queue.batches import Batch, BatchReport, Reason
from mailrace.queue.jobs import Enqueued, NewJob
from mailrace.queue.refusals import no_batch
from mailrace.queue.stores.sqlite.adding import add_jobs, check_open
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import run, statement
from mailrace.queue.stores.sqlite.reports import batch_reasons, batch_report


class Intake(Base):
    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        if not jobs:
            return []
        answers = await self._write(self._enqueue, jobs)
        self._ring()
        return answers

    def _enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        check_open(self._connection, jobs)
        return add_jobs(self._connection, jobs, self._now_ms())

    async def open_batch(
        self, name: str, kind: str, spec: bytes, *, completion: NewJob | None = None
    ) -> Batch:
        return await self._write(self._open_batch, name, kind, spec, completion)

    def _open_batch(self, name: str, kind: str, spec: bytes, completion: NewJob | None) -> Batch:
        added = run(
            self._connection, "batch_insert",
            name=name, kind=kind, spec=spec.decode(), now_ms=self._now_ms(),
            completion=None if completion is None else msgspec.json.encode(completion).decode(),
        )  # fmt: skip
        row = self._connection.execute(statement("batch_select"), {"name": name}).fetchone()
        return _batch(row, created=bool(added))

    async def seal_batch(self, batch_id: int) -> None:
        await self._write(self._seal_batch, batch_id)

    def _seal_batch(self, batch_id: int) -> None:
        if not run(self._connection, "batch_seal", batch_id=batch_id, now_ms=self._now_ms()):
            raise no_batch(batch_id)

    async def batches(self) -> list[Batch]:
        return await self._read(_batches)

    async def report(self, batch_id: int) -> BatchReport:
        now_ms = self._now_ms()
        return await self._read(lambda connection: batch_report(connection, batch_id, now_ms))

    async def reasons(self, batch_id: int) -> list[Reason]:
        return await self._read(lambda connection: batch_reasons(connection, batch_id))


def _batches(connection: sqlite3.Connection) -> list[Batch]:
    rows = connection.execute(statement("batch_list")).fetchall()
    return [_batch(row, created=False) for row in rows]


def _batch(row: tuple[int, str, str, str, int | None, int | None], *, created: bool) -> Batch:
    batch_id, name, kind, spec, sealed_ms, completed_ms = row
    return Batch(
        id=batch_id,
        name=name,
        kind=kind,
        spec=msgspec.Raw(spec.encode()),
        created=created,
        sealed=sealed_ms is not None,
        completed=completed_ms is not None,
    )
