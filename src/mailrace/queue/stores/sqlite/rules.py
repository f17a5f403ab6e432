"""What holds for everybody on the SQLite store: queues, limits, schedules."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mailrace.pool.limiter import Slots
from mailrace.queue.jobs import read_job
from mailrace.queue.limits import CommonSlot, LimitRow, schedule_of
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.refusals import no_limit, no_schedule
from mailrace.queue.schedules import ScheduleRow, stored_schedule, unreadable, write_job
from mailrace.queue.stores.sqlite.adding import add_jobs, check_open
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import run, statement
from mailrace.queue.stores.sqlite.gates import gates_of

SLOTS_KEPT_MS = 40 * 86_400_000
_SLOTS_MAX = 10_000
# Farther ahead than a thousand processes could have taken, each a span.
_AHEAD_S = 3600.0
_SPANS_AHEAD = 1000
_NAMES = msgspec.json.Decoder(tuple[str, ...])
_SCHEDULE: Final = (
    "name", "cron", "zone", "catch_up", "job", "paused", "created_ms", "last_slot_ms",
)  # fmt: skip


class Rules(Base):
    async def queue_rules(self) -> list[QueueRules]:
        return [
            QueueRules(
                name=row[0],
                paused=bool(row[1]),
                draining=bool(row[2]),
                concurrency=row[3],
                concurrency_per_key=row[4],
                limits=_NAMES.decode(row[5]),
                ageing_s=row[6],
            )
            for row in await self._rows("queue_rules")
        ]

    async def set_queue(self, rules: QueueRules, *, only: Sequence[str] | None = None) -> None:
        fields = QueueRules.__struct_fields__ if only is None else only
        await self._write(self._set_queue, rules, fields)
        self._ring()

    def _set_queue(self, rules: QueueRules, only: Sequence[str]) -> None:
        connection = self._connection
        run(
            connection, "queue_put",
            name=rules.name, paused=rules.paused, draining=rules.draining,
            concurrency=rules.concurrency, concurrency_per_key=rules.concurrency_per_key,
            limits=msgspec.json.encode(rules.limits).decode(), ageing_s=float(rules.ageing_s),
            only=msgspec.json.encode(only).decode(),
        )  # fmt: skip
        gate = gates_of(connection, {rules.name}).get(rules.name)
        bounded = gate is not None and (gate.concurrency or gate.concurrency_per_key) is not None
        run(connection, "queue_gate", queue=rules.name, gated=bounded)
        # Whoever claims them next sets aside again what may not run under the new rules.
        run(connection, "queue_unblock", queue=rules.name)
        run(connection, "arrivals_add", queue=rules.name)

    async def limits(self) -> list[LimitRow]:
        return [_limit(row) for row in await self._rows("limits")]

    async def set_limit(self, limit: LimitRow) -> None:
        schedule_of(limit)  # raises for what is no rate, before anything is written
        await self._write(_set_limit, self._connection, limit)

    async def remove_limit(self, name: str) -> bool:
        return await self._write(run, self._connection, "limit_delete", name=name) == 1

    async def take_slots(self, name: str, default: LimitRow | None, *, span_s: float) -> Slots:
        return await self._write(self._take_slots, name, default, span_s)

    def _take_slots(self, name: str, default: LimitRow | None, span_s: float) -> Slots:
        row, taken_s = self._limit_or(name, default)
        schedule = schedule_of(row)
        slots = min(_SLOTS_MAX, max(1, int(span_s / schedule.interval_s)))
        now_s = self._clock.unix_s()
        ready_s = _ready_s(row, taken_s, now_s, max(span_s, schedule.interval_s))
        first_s, next_s = schedule.take(ready_s, from_s=now_s, slots=slots)
        self._note_slot(name, next_s, now_s)
        return Slots(
            first_in_s=first_s - now_s,
            interval_s=schedule.interval_s,
            grace_s=schedule.grace_s,
            slots=slots,
        )

    async def take_together(
        self, names: Sequence[str], defaults: Mapping[str, LimitRow], *, slack_s: float
    ) -> CommonSlot:
        return await self._write(self._take_together, names, defaults, slack_s)

    def _take_together(
        self, names: Sequence[str], defaults: Mapping[str, LimitRow], slack_s: float
    ) -> CommonSlot:
        now_s = self._clock.unix_s()
        schedules = {}
        ready_s: dict[str, float] = {}
        for name in names:
            row, taken_s = self._limit_or(name, defaults.get(name))
            schedule = schedules[name] = schedule_of(row)
            ready_s[name] = max(now_s, _ready_s(row, taken_s, now_s, schedule.interval_s))
        last = max(ready_s, key=ready_s.__getitem__)
        at_s = ready_s[last]
        taken = at_s - min(ready_s.values()) <= slack_s
        if taken:
            for name, schedule in schedules.items():
                self._note_slot(name, at_s + schedule.interval_s, now_s)
        return CommonSlot(
            taken=taken,
            in_s=at_s - now_s,
            grace_s=min(schedule.grace_s for schedule in schedules.values()),
            interval_s=max(schedule.interval_s for schedule in schedules.values()),
            last=last,
        )

    def _note_slot(self, name: str, next_s: float, now_s: float) -> None:
        run(
            self._connection, "limit_next",
            name=name, next_slot_ms=next_s * 1000, now_ms=now_s * 1000,
        )  # fmt: skip

    def _limit_or(self, name: str, default: LimitRow | None) -> tuple[LimitRow, float]:
        """The limit and when slots were last taken; made from the default if there is none."""
        found = _limit_row(self._connection, name)
        if (found is None or not found[0].rates) and default is not None:
            _set_limit(self._connection, msgspec.structs.replace(default, name=name))
            found = _limit_row(self._connection, name)
        if found is None or not found[0].rates:
            raise no_limit(name)
        return found

    async def slow_limit(
        self, name: str, *, factor: float, floor: float, cool_down_s: float
    ) -> float:
        return await self._write(self._slow_limit, name, factor, floor, cool_down_s)

    def _slow_limit(self, name: str, factor: float, floor: float, cool_down_s: float) -> float:
        run(
            self._connection, "limit_slow",
            name=name, factor=float(factor), floor=float(floor), now_ms=self._now_ms(),
            cool_down_ms=int(cool_down_s * 1000),
        )  # fmt: skip
        found = _limit_row(self._connection, name)
        if found is None:
            raise no_limit(name)
        return found[0].pace

    async def quicken_limits(self, *, step: float, every_s: float) -> int:
        return await self._write(
            run, self._connection, "limits_quicken",
            step=float(step), now_ms=self._now_ms(), every_ms=int(every_s * 1000),
        )  # fmt: skip

    async def schedules(self) -> list[ScheduleRow]:
        return [stored_schedule(_SCHEDULE, row) for row in await self._rows("schedules")]

    async def put_schedule(self, schedule: ScheduleRow) -> None:
        await self._write(self._put_schedule, schedule)

    def _put_schedule(self, schedule: ScheduleRow) -> None:
        connection, job = self._connection, write_job(schedule)
        values = {"name": schedule.name}
        known = connection.execute(statement("schedule_job"), values).fetchone()
        run(
            connection, "schedule_put",
            name=schedule.name, cron=schedule.cron, zone=schedule.zone, catch_up=schedule.catch_up,
            job=job, paused=schedule.paused, created_ms=self._now_ms(),
        )  # fmt: skip
        if known is None and schedule.last_slot_ms is not None:
            run(
                connection, "slot_fire",
                name=schedule.name, slot_ms=schedule.last_slot_ms, job_id=None,
            )  # fmt: skip

    async def remove_schedule(self, name: str) -> bool:
        return await self._write(self._remove_schedule, name)

    def _remove_schedule(self, name: str) -> bool:
        run(self._connection, "slots_delete", name=name)
        return run(self._connection, "schedule_delete", name=name) == 1

    async def fire(self, name: str, slot_ms: int) -> bool:
        fired = await self._write(self._fire, name, slot_ms)
        self._ring()
        return fired

    def _fire(self, name: str, slot_ms: int) -> bool:
        connection = self._connection
        found = connection.execute(statement("schedule_job"), {"name": name}).fetchone()
        if found is None:
            raise no_schedule(name)
        text, newest_ms = found
        if newest_ms is not None and slot_ms < newest_ms - SLOTS_KEPT_MS:
            return False  # so old that nobody remembers whether it was fired
        if not run(connection, "slot_fire", name=name, slot_ms=slot_ms, job_id=None):
            return False
        job, trouble = read_job(text)
        if job is None:
            raise unreadable(name, trouble)
        check_open(connection, [job])
        add_jobs(connection, [job], self._now_ms())
        return True


def _ready_s(row: LimitRow, taken_s: float, now_s: float, span_s: float) -> float:
    """When the next slot is, unless a clock tells nonsense."""
    ready_s = row.next_slot_ms / 1000
    if now_s < taken_s:
        ready_s -= taken_s - now_s  # the clock was set back, and the slots go with it
    if ready_s - now_s > _AHEAD_S + _SPANS_AHEAD * span_s:
        return now_s  # taken by a clock that was far ahead, or under a slower rate
    return ready_s


def _set_limit(connection: sqlite3.Connection, limit: LimitRow) -> None:
    run(
        connection, "limit_put",
        name=limit.name, rates=limit.rates, margin=float(limit.margin), adaptive=limit.adaptive,
        pace=float(limit.pace), next_slot_ms=float(limit.next_slot_ms),
    )  # fmt: skip


def _limit_row(connection: sqlite3.Connection, name: str) -> tuple[LimitRow, float] | None:
    row = connection.execute(statement("limit_select"), {"name": name}).fetchone()
    return None if row is None else (_limit(row), row[-1] / 1000)


def _limit(row: tuple[Any, ...]) -> LimitRow:
    name, rates, margin, adaptive, pace, next_slot_ms, _ = row
    return LimitRow(
        name=name,
        rates=rates,
        margin=margin,
        adaptive=bool(adaptive),
        pace=pace,
        next_slot_ms=next_slot_ms,
    )
