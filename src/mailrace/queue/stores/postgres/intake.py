"""The part of the store where jobs come in."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from mailrace.clock import Clock
from mailrace.queue.batches import Batch, BatchReport, Reason
from mailrace.queue.jobs import Enqueued, NewJob
from mailrace.queue.refusals import no_batch
from mailrace.queue.states import JobState
from mailrace.queue.stores.postgres.copyrows import CopyRows
from mailrace.queue.stores.postgres.database import Database, statement
from mailrace.queue.stores.postgres.notifier import Notifier
from mailrace.queue.stores.postgres.parts import Part
from mailrace.queue.stores.postgres.records import jobs_json

_REPORT = msgspec.json.Decoder(BatchReport)


class Intake(Part):
    """Jobs by one call of a function in the database, which is the same for whoever enqueues.

    Many that need nothing of that function come by COPY: docs/decisions/0015.
    """

    def __init__(self, work: Database, desk: Database, clock: Clock) -> None:
        super().__init__(work, desk, clock)
        self._notifier = Notifier(work, self.wake_nearby)

    def wake_nearby(self, queues: set[str]) -> None:
        """Wakes those who wait for jobs in this process."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        if not jobs:
            return []
        rows = CopyRows.of(jobs)
        if rows is None:
            enqueued = await self._call(jobs)
        else:
            enqueued = await self._copy(jobs, rows)
        # After the commit: whoever notifies in a transaction keeps all others who do waiting until
        # it is on disk.
        self._notifier.tell({job.queue for job in jobs})
        return enqueued

    async def _call(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        rows = await self.work.rows("enqueue", jobs=jobs_json(jobs))
        return [Enqueued(job_id, created) for job_id, created in rows]

    async def _copy(self, jobs: Sequence[NewJob], rows: CopyRows) -> list[Enqueued]:
        numbers = Counter((job.queue, job.batch_id or 0) for job in jobs)
        async with self.work.transaction() as statements:
            ((present, ids, _),) = await statements.rows(
                "copy_admit", queues=[queue for queue, _ in numbers],
                batch_ids=[batch_id for _, batch_id in numbers], numbers=list(numbers.values()),
                jobs=len(jobs),
            )  # fmt: skip
            async with statements.connection.cursor().copy(statement("copy")) as copy:
                for block in rows.blocks(ids, present):
                    await copy.write(block)
        return [Enqueued(id=job_id, new=True) for job_id in ids]

    async def open_batch(
        self, name: str, kind: str, spec: bytes, *, completion: NewJob | None = None
    ) -> Batch:
        after = None if completion is None else msgspec.json.encode(completion).decode()
        made = await self.work.run(
            "batch_insert", name=name, kind=kind, spec=spec.decode(), completion=after
        )
        rows = await self.work.rows("batch_select", name=name)
        return _batch(rows[0], created=made == 1)

    async def seal_batch(self, batch_id: int) -> None:
        sealed = await self.work.run("batch_seal", batch_id=batch_id)
        if not sealed and await self.work.one("batch_known", batch_id=batch_id) is None:
            raise no_batch(batch_id)

    async def batches(self) -> list[Batch]:
        return [_batch(row) for row in await self.desk.rows("batch_select", name=None)]

    async def report(self, batch_id: int) -> BatchReport:
        found = await self.desk.one("report", batch_id=batch_id)
        if found is None:
            raise no_batch(batch_id)
        return _REPORT.decode(found)

    async def reasons(self, batch_id: int) -> list[Reason]:
        rows = await self.desk.rows("reasons", batch_id=batch_id)
        return [
            Reason(state=JobState(state), reason=reason, detail=detail, jobs=jobs)
            for state, reason, detail, jobs in rows
        ]


def _batch(row: tuple[Any, ...], *, created: bool = False) -> Batch:
    batch_id, name, kind, spec, sealed, completed = row
    return Batch(
        id=batch_id, name=name, kind=kind, spec=msgspec.Raw(spec), created=created, sealed=sealed,
        completed=completed,
    )  # fmt: skip
