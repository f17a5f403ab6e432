"""How much work there is and was in the SQLite store."""

import sqlite3

from mailrace.queue.figures import MINUTE_MS, QueueFigures, Throughput
from mailrace.queue.states import WAITING, JobState
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import one, statement

_DUE_COUNTED = 10_000
_FLOWS_LOOKED_AT = 1_000


class Figures(Base):
    async def queue_figures(self) -> list[QueueFigures]:
        now_ms = self._now_ms()
        return await self._read(lambda connection: _queue_figures(connection, now_ms))

    async def throughput(self, hours: float) -> list[Throughput]:
        now_ms = self._now_ms()
        return await self._read(lambda connection: _throughput(connection, now_ms, hours))

    async def now_ms(self) -> int:
        return self._now_ms()


def _queue_figures(connection: sqlite3.Connection, now_ms: int) -> list[QueueFigures]:
    counts: dict[str, dict[JobState, int]] = {}
    for queue, state, jobs in connection.execute(statement("counts_by_queue")).fetchall():
        counts.setdefault(queue, dict.fromkeys(JobState, 0))[JobState(state)] = jobs
    return [_figures(connection, queue, counts[queue], now_ms) for queue in sorted(counts)]


def _figures(
    connection: sqlite3.Connection, queue: str, counts: dict[JobState, int], now_ms: int
) -> QueueFigures:
    """Counts what is due flow by flow: in each the due jobs stand first."""
    waiting = sum(counts[state] for state in WAITING)
    due, oldest_ms = 0, now_ms
    values = {"queue": queue, "first": "", "most": _FLOWS_LOOKED_AT}
    flows = connection.execute(statement("survey"), values).fetchall() if waiting else []
    for tenant, priority, run_at_ms in flows:
        if run_at_ms <= now_ms and due < _DUE_COUNTED:
            due += one(
                connection, "due_count",
                queue=queue, tenant=tenant, priority=priority, now_ms=now_ms,
                most=_DUE_COUNTED - due,
            )  # fmt: skip
        oldest_ms = min(oldest_ms, run_at_ms)
    if due == _DUE_COUNTED or len(flows) == _FLOWS_LOOKED_AT:
        due = max(due, counts[JobState.AVAILABLE])  # what is scheduled mostly lies ahead
    return QueueFigures(queue=queue, counts=counts, due=due, oldest_due_ms=now_ms - oldest_ms)


def _throughput(connection: sqlite3.Connection, now_ms: int, hours: float) -> list[Throughput]:
    after = (now_ms - int(hours * 3_600_000)) // MINUTE_MS
    rows = connection.execute(statement("throughput"), {"after": after}).fetchall()
    return [
        Throughput(
            queue=row[0],
            start_ms=row[1] * MINUTE_MS,
            completed=row[2],
            failed=row[3],
            retried=row[4],
        )
        for row in rows
    ]
