"""What holds for everybody, on PostgreSQL: queues, limits, schedules."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mailrace.pool.limiter import Slots
from mailrace.queue.jobs import read_job
from mailrace.queue.limits import CommonSlot, LimitRow, schedule_of
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.refusals import no_limit, no_schedule
from mailrace.queue.schedules import ScheduleRow, stored_schedule, unreadable, write_job
from mailrace.queue.stores.postgres import gates
from mailrace.queue.stores.postgres.parts import Part, structs

_SCHEDULE: Final = (
    "name", "cron", "zone", "catch_up", "job", "paused", "last_slot_ms", "created_ms",
)  # fmt: skip


class Rules(Part):
    """Rows that people set, and what processes take by them."""

    async def queue_rules(self) -> list[QueueRules]:
        return structs(QueueRules, await self.work.rows("queue_rules"))

    async def set_queue(self, rules: QueueRules, *, only: Sequence[str] | None = None) -> None:
        values = msgspec.structs.asdict(rules) | {"limits": list(rules.limits)}
        values["only"] = list(QueueRules.__struct_fields__ if only is None else only)
        async with self.desk.transaction() as transaction:
            await transaction.run("queue_put", **values)
            await gates.mend(transaction, rules.name)

    async def limits(self) -> list[LimitRow]:
        return structs(LimitRow, await self.desk.rows("limits"))

    async def set_limit(self, limit: LimitRow) -> None:
        await self.desk.run("limit_put", **_limit_values(limit))

    async def remove_limit(self, name: str) -> bool:
        return await self.desk.run("limit_delete", name=name) > 0

    async def take_slots(self, name: str, default: LimitRow | None, *, span_s: float) -> Slots:
        rows = await self.work.rows("slots_take", name=name, span_s=span_s)
        while not rows:  # somebody may remove it again between the two
            if default is None:
                raise no_limit(name)
            await self.work.run("limit_make", **_limit_values(default) | {"name": name})
            rows = await self.work.rows("slots_take", name=name, span_s=span_s)
        ((until_s, interval_s, grace_s, slots),) = rows
        return Slots(
            first_in_s=max(0.0, until_s - slots * interval_s),
            interval_s=interval_s,
            grace_s=grace_s,
            slots=slots,
        )

    async def take_together(
        self, names: Sequence[str], defaults: Mapping[str, LimitRow], *, slack_s: float
    ) -> CommonSlot:
        wanted = sorted(set(names))
        while True:  # somebody may remove one again between the two
            rows = await self.work.rows(
                "slots_take_together", names=wanted, many=len(wanted), slack_s=slack_s
            )
            missing = set(wanted) - {row[0] for row in rows}
            if not missing:
                last, taken, in_s, grace_s, interval_s = rows[0]
                return CommonSlot(
                    taken=taken,
                    in_s=max(0.0, in_s),
                    grace_s=grace_s,
                    interval_s=interval_s,
                    last=last,
                )
            for name in missing:
                if name not in defaults:
                    raise no_limit(name)
                await self.work.run("limit_make", **_limit_values(defaults[name]) | {"name": name})

    async def slow_limit(
        self, name: str, *, factor: float, floor: float, cool_down_s: float
    ) -> float:
        pace: float | None = await self.work.one(
            "limit_slow", name=name, factor=factor, floor=floor, cool_down_s=cool_down_s
        )
        if pace is None:
            raise no_limit(name)
        return pace

    async def quicken_limits(self, *, step: float, every_s: float) -> int:
        return await self.desk.run("limits_quicken", step=step, every_s=every_s)

    async def schedules(self) -> list[ScheduleRow]:
        return [stored_schedule(_SCHEDULE, row) for row in await self.desk.rows("schedules")]

    async def put_schedule(self, schedule: ScheduleRow) -> None:
        values = msgspec.structs.asdict(schedule)
        values["job"] = write_job(schedule)
        async with self.desk.transaction() as transaction:
            await transaction.run("schedule_put", **values)

    async def remove_schedule(self, name: str) -> bool:
        return await self.desk.run("schedule_delete", name=name) > 0

    async def fire(self, name: str, slot_ms: int) -> bool:
        async with self.desk.transaction() as transaction:
            text = await transaction.one("schedule_job", name=name)
            if text is None:
                raise no_schedule(name)
            if not await transaction.run("slot_fire", name=name, slot_ms=slot_ms):
                return False
            job, trouble = read_job(text)
            if job is None:
                raise unreadable(name, trouble)
            job_id: int = await transaction.one("slot_enqueue", name=name)
            await transaction.run("slot_job", name=name, slot_ms=slot_ms, job_id=job_id)
        return True


def _limit_values(limit: LimitRow) -> dict[str, Any]:
    # At full pace: the statements slow it down themselves.
    schedule = schedule_of(msgspec.structs.replace(limit, pace=1.0))
    return msgspec.structs.asdict(limit) | {
        "interval_s": schedule.interval_s,
        "grace_s": schedule.grace_s,
    }
