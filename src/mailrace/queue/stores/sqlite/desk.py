"""Where people look at the jobs of the SQLite store and decide."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mailrace.queue.jobrows import AttemptRow, EndedCount, JobDetail, JobFilter, JobRow
from mailrace.queue.states import FINAL, REVIVABLE, WAITING, JobState
from mailrace.queue.storedpayloads import (
    PAGE_BYTES,
    PayloadChange,
    PlannedJob,
    StoredPayload,
)
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.choosing import (
    choose,
    delete_chosen,
    end_chosen,
    let_in_after_chosen,
    move_chosen,
    revive_chosen,
)
from mailrace.queue.stores.sqlite.database import run, statement
from mailrace.queue.stores.sqlite.filters import Filter

_COLUMNS: Final = (
    "id", "state", "kind", "queue", "tenant", "priority", "attempt", "attempts", "deaths",
    "snoozes", "key", "batch_id", "tags", "lane", "created_ms", "run_at_ms", "expires_ms",
    "ended_ms", "process_id", "category", "reason", "detail",
)  # fmt: skip
_TAGS = msgspec.json.Decoder(tuple[str, ...])


class Desk(Base):
    async def find(
        self, where: JobFilter, *, limit: int = 100, before_id: int | None = None
    ) -> list[JobRow]:
        return await self._read(lambda connection: _find(connection, where, limit, before_id))

    async def detail(self, job_id: int) -> JobDetail | None:
        return await self._read(lambda connection: _detail(connection, job_id))

    async def cancel(self, where: JobFilter, *, limit: int = 10_000) -> int:
        return await self._write(self._cancel, where, limit)

    def _cancel(self, where: JobFilter, limit: int) -> int:
        connection = self._connection
        choose(connection, where, frozenset(WAITING), limit)
        cancelled = end_chosen(connection, JobState.CANCELLED, self._now_ms())
        running = frozenset({JobState.RUNNING})
        choose(connection, where, running, limit - cancelled, also="NOT cancel_requested")
        return cancelled + run(connection, "ask_cancel")

    async def cancels(self, process_id: int) -> list[int]:
        return [job_id for (job_id,) in await self._rows("cancels", process_id=process_id)]

    async def revive(self, where: JobFilter, *, limit: int = 10_000) -> int:
        revived = await self._write(self._revive, where, limit)
        self._ring()
        return revived

    def _revive(self, where: JobFilter, limit: int) -> int:
        choose(self._connection, where, frozenset(REVIVABLE), limit, also=_NO_LIVE_TWIN)
        return revive_chosen(self._connection, self._now_ms())

    async def resend(self, batch_id: int) -> int:
        revived = await self._write(self._resend, batch_id)
        self._ring()
        return revived

    def _resend(self, batch_id: int) -> int:
        run(self._connection, "chosen_clear")
        run(self._connection, "choose_uncertain", batch_id=batch_id)
        return revive_chosen(self._connection, self._now_ms())

    async def reschedule(self, where: JobFilter, delay_ms: int, *, limit: int = 10_000) -> int:
        moved = await self._write(self._reschedule, where, delay_ms, limit)
        self._ring()
        return moved

    def _reschedule(self, where: JobFilter, delay_ms: int, limit: int) -> int:
        connection = self._connection
        choose(connection, where, frozenset(WAITING), limit)
        for queue in move_chosen(connection, JobState.SCHEDULED):
            run(connection, "arrivals_add", queue=queue)
        moved = run(connection, "reschedule", run_at_ms=self._now_ms() + delay_ms)
        let_in_after_chosen(connection)
        return moved

    async def delete(self, where: JobFilter, *, limit: int = 10_000) -> int:
        return await self._write(self._delete, where, limit)

    def _delete(self, where: JobFilter, limit: int) -> int:
        choose(self._connection, where, FINAL, limit)
        return delete_chosen(self._connection)

    async def ended_counts(self, where: JobFilter) -> list[EndedCount]:
        return await self._read(lambda connection: _ended_counts(connection, where))

    async def payloads(self, after_id: int, *, limit: int = 500) -> list[StoredPayload]:
        return await self._read(lambda connection: _payloads(connection, after_id, limit))

    async def replace_payloads(self, changes: Sequence[PayloadChange]) -> list[int]:
        return await self._write(self._replace_payloads, changes)

    def _replace_payloads(self, changes: Sequence[PayloadChange]) -> list[int]:
        return [
            change.id
            for change in changes
            if run(
                self._connection, "payload_replace",
                id=change.id, lease=change.lease, payload=change.payload.decode(),
            )
        ]  # fmt: skip

    async def planned_jobs(self) -> list[PlannedJob]:
        return await self._read(_planned_jobs)

    async def replace_planned(self, planned: PlannedJob, job: bytes) -> bool:
        return await self._write(self._replace_planned, planned, job)

    def _replace_planned(self, planned: PlannedJob, job: bytes) -> bool:
        name = "schedule_replace" if planned.source == "schedule" else "completion_replace"
        expected = bytes(planned.job).decode()
        values = {"name": planned.name, "expected": expected, "job": job.decode()}
        return self._connection.execute(statement(name), values).rowcount == 1


# A job that cannot be revived must not fill up the limit again and again.
_NO_LIVE_TWIN: Final = """(unique_digest IS NULL OR NOT EXISTS (
    SELECT 1 FROM jobs AS twin
    WHERE twin.unique_digest = jobs.unique_digest AND twin.unique_digest IS NOT NULL
        AND twin.state IN ('scheduled', 'available', 'running', 'retryable')
))"""


def _find(
    connection: sqlite3.Connection, where: JobFilter, limit: int, before_id: int | None
) -> list[JobRow]:
    wanted = Filter(where)
    if not wanted.states:
        return []
    before = "" if before_id is None else " AND id < :before_id"
    sql = (
        f"SELECT {', '.join(_COLUMNS)} {wanted.gathered(connection)}{before}"
        " ORDER BY id DESC LIMIT :limit"
    )
    values = wanted.values | {"limit": limit, "before_id": before_id}
    return [_row(row) for row in connection.execute(sql, values).fetchall()]


def _row(row: tuple[Any, ...]) -> JobRow:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = JobState(values["state"])
    values["tags"] = _TAGS.decode(values["tags"]) if values["tags"] else ()
    return JobRow(**values)


def _detail(connection: sqlite3.Connection, job_id: int) -> JobDetail | None:
    rows = _find(connection, JobFilter(ids=(job_id,)), 1, None)
    if not rows:
        return None
    values = {"job_id": job_id}
    payload, result = connection.execute(statement("job_select"), values).fetchone()
    attempts = connection.execute(statement("attempts_select"), values)
    return JobDetail(
        row=rows[0],
        payload=msgspec.Raw(payload.encode()),
        result=None if result is None else msgspec.Raw(result.encode()),
        attempts=[
            AttemptRow(
                lease=row[0],
                attempt=row[1],
                at_ms=row[2],
                step=row[3],
                category=row[4],
                reason=row[5],
                detail=row[6],
            )
            for row in attempts
        ],
    )


def _ended_counts(connection: sqlite3.Connection, where: JobFilter) -> list[EndedCount]:
    wanted = Filter(where, FINAL - {JobState.COMPLETED})
    if not wanted.states:
        return []
    sql = (
        "SELECT state, queue, kind, category, reason, count(*), min(ended_ms), max(ended_ms)"  # noqa: S608 - pieces of filters.py
        f" FROM jobs WHERE ended_ms IS NOT NULL AND state <> 'completed' AND {wanted.conditions}"
        " GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4, 5"
    )
    return [
        EndedCount(
            state=JobState(row[0]),
            queue=row[1],
            kind=row[2],
            category=row[3],
            reason=row[4],
            jobs=row[5],
            first_ms=row[6],
            last_ms=row[7],
        )
        for row in connection.execute(sql, wanted.values).fetchall()
    ]


def _payloads(connection: sqlite3.Connection, after_id: int, limit: int) -> list[StoredPayload]:
    found: list[StoredPayload] = []
    size = 0
    for row in connection.execute(statement("payloads"), {"after_id": after_id, "limit": limit}):
        job_id, state, lease, kind, queue, batch_id, text = row
        encoded = text.encode()
        payload = msgspec.Raw(encoded)
        found.append(StoredPayload(job_id, JobState(state), lease, kind, queue, batch_id, payload))
        size += len(encoded)
        if size >= PAGE_BYTES:
            break
    return found


def _planned_jobs(connection: sqlite3.Connection) -> list[PlannedJob]:
    return [
        PlannedJob(source=source, name=name, job=msgspec.Raw(job.encode()))
        for source, name, job in connection.execute(statement("planned_jobs")).fetchall()
    ]
