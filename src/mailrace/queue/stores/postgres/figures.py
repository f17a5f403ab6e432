"""How much there is and was, on PostgreSQL."""

from typing import Any

import msgspec

from mailrace.queue.figures import MINUTE_MS, QueueFigures, Throughput
from mailrace.queue.states import JobState
from mailrace.queue.stores.postgres.parts import Part


class Figures(Part):
    """From kept counts, and from the first jobs of each flow."""

    async def queue_figures(self) -> list[QueueFigures]:
        return [_queue(row) for row in await self.desk.rows("queue_figures")]

    async def throughput(self, hours: float) -> list[Throughput]:
        # Whole minutes only, or the first would show less than there was.
        from_ms = (await self.now_ms() - int(hours * 3_600_000)) // MINUTE_MS * MINUTE_MS
        rows = await self.desk.rows("throughput", from_ms=from_ms)
        return [
            Throughput(
                queue=queue, start_ms=start_ms, completed=completed, failed=failed, retried=retried
            )
            for queue, start_ms, completed, failed, retried in rows
        ]

    async def now_ms(self) -> int:
        now_ms: int = await self.work.one("now_ms")
        return now_ms


def _queue(row: tuple[Any, ...]) -> QueueFigures:
    queue, counts, due, oldest_due_ms = row
    found = msgspec.json.decode(counts, type=dict[JobState, int])
    return QueueFigures(
        queue=queue,
        counts=dict.fromkeys(JobState, 0) | found,
        due=due,
        oldest_due_ms=oldest_due_ms or 0,
    )
