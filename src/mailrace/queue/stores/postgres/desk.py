"""Where people look at jobs and decide, on PostgreSQL."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mailrace.queue.jobrows import AttemptRow, EndedCount, JobDetail, JobFilter, JobRow
from mailrace.queue.states import FINAL, REVIVABLE, JobState
from mailrace.queue.storedpayloads import (
    PAGE_BYTES,
    PayloadChange,
    PlannedJob,
    StoredPayload,
)
from mailrace.queue.stores.postgres.parts import Part, structs

_ALL: Final = 2**31 - 1
# A claim holds its rows for some milliseconds; nobody but a stuck transaction for a second.
_PATIENCE: Final = 50
_PAUSE_S: Final = 0.02


class Desk(Part):
    """Lists, details and decisions; every one of them goes by a `JobFilter`."""

    async def find(
        self, where: JobFilter, *, limit: int = 100, before_id: int | None = None
    ) -> list[JobRow]:
        values = _values(where) | {"limit": limit, "before_id": before_id}
        return structs(JobRow, await self.desk.rows("find", **values))

    async def detail(self, job_id: int) -> JobDetail | None:
        rows = await self.desk.rows("detail", id=job_id)
        if not rows:
            return None
        *row, payload, result, attempts = rows[0]
        (found,) = structs(JobRow, [row])
        return JobDetail(
            row=found,
            payload=msgspec.Raw(payload),
            result=None if result is None else msgspec.Raw(result),
            attempts=msgspec.json.decode(attempts, type=list[AttemptRow]),
        )

    async def cancel(self, where: JobFilter, *, limit: int = 10_000) -> int:
        done = 0
        for _ in range(_PATIENCE):
            ((picked, matched),) = await self.desk.rows(
                "cancel", **_values(where), limit=limit - done
            )
            done += picked
            if picked == matched:
                break
            # The rest was just being claimed or brought back. Whoever cancels a campaign must not
            # miss what was on its way to a worker at that moment.
            await asyncio.sleep(_PAUSE_S)
        return done

    async def cancels(self, process_id: int) -> list[int]:
        return [row[0] for row in await self.work.rows("cancels", process_id=process_id)]

    async def revive(self, where: JobFilter, *, limit: int = 10_000) -> int:
        return await self._count("revive", where, limit)

    async def resend(self, batch_id: int) -> int:
        where = JobFilter(batch_id=batch_id, states=(JobState.UNCERTAIN,))
        return await self._count("revive", where, _ALL)

    async def reschedule(self, where: JobFilter, delay_ms: int, *, limit: int = 10_000) -> int:
        return await self._count("reschedule", where, limit, delay_ms=delay_ms)

    async def delete(self, where: JobFilter, *, limit: int = 10_000) -> int:
        values = _values(where)
        async with self.desk.transaction() as transaction:
            ended: int = await transaction.one("delete_ended", **values, limit=limit)
            completed: int = await transaction.one(
                "delete_completed", **values, limit=limit - ended
            )
        return ended + completed

    async def ended_counts(self, where: JobFilter) -> list[EndedCount]:
        return structs(EndedCount, await self.desk.rows("ended_counts", **_values(where)))

    async def payloads(self, after_id: int, *, limit: int = 500) -> list[StoredPayload]:
        rows = await self.desk.rows(
            "payloads", after_id=after_id, limit=limit, most_bytes=PAGE_BYTES
        )
        return [
            StoredPayload(job_id, JobState(state), lease, kind, queue, batch_id, msgspec.Raw(text))
            for job_id, state, lease, kind, queue, batch_id, text in rows
        ]

    async def replace_payloads(self, changes: Sequence[PayloadChange]) -> list[int]:
        rows = await self.desk.rows(
            "payload_replace",
            ids=[change.id for change in changes],
            leases=[change.lease for change in changes],
            payloads=[change.payload.decode() for change in changes],
        )
        return [job_id for (job_id,) in rows]

    async def planned_jobs(self) -> list[PlannedJob]:
        rows = await self.desk.rows("planned_jobs")
        return [
            PlannedJob(source=source, name=name, job=msgspec.Raw(job)) for source, name, job in rows
        ]

    async def replace_planned(self, planned: PlannedJob, job: bytes) -> bool:
        name = "schedule_replace" if planned.source == "schedule" else "completion_replace"
        values = {"name": planned.name, "expected": bytes(planned.job).decode()}
        return await self.desk.run(name, **values, job=job.decode()) == 1

    async def _count(self, name: str, where: JobFilter, limit: int, **values: Any) -> int:
        count: int = await self.desk.one(name, **_values(where), limit=limit, **values)
        return count


def _values(where: JobFilter) -> dict[str, Any]:
    """What the conditions of the desk's statements are given, and which tables can have any."""
    values = msgspec.structs.asdict(where)
    states = where.states
    of_any_time = where.ended_before_ms is None and where.ended_after_ms is None
    return values | {
        "ids": None if where.ids is None else list(where.ids),
        # As text, which the server reads as its own type: a cast would hide it from the planner.
        "states": None if states is None else f"{{{','.join(states)}}}",
        "live": of_any_time and (states is None or not FINAL.issuperset(states)),
        "completed": (states is None or JobState.COMPLETED in states) and not where.category,
        "ended": states is None or not set(REVIVABLE).isdisjoint(states),
    }
