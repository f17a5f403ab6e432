"""What one process at a time does for all of them."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Final

from mailrace.clock import Clock
from mailrace.errors import ConflictError
from mailrace.queue.cron import CatchUp, CronExpression, CronSchedule, due
from mailrace.queue.schedules import ScheduleRow, unreadable
from mailrace.queue.states import JobState
from mailrace.queue.store import Store

_DAY_S: Final = 86400.0
DEFAULT_KEEP_S: Final[Mapping[JobState, float]] = MappingProxyType(
    {
        JobState.COMPLETED: 7 * _DAY_S,
        JobState.CANCELLED: 30 * _DAY_S,
        JobState.EXPIRED: 30 * _DAY_S,
        JobState.FAILED: 90 * _DAY_S,
        JobState.UNCERTAIN: 90 * _DAY_S,
    }
)
"""A week of successes, a month of what was not wanted any more, a quarter of what went wrong."""
# A slot of a schedule that is no later than this is on time.
_ON_TIME_S: Final = 60.0
# Slots of adaptive limits that were slowed come back by a twentieth of the rate.
_QUICKEN_STEP: Final = 0.05
_QUICKEN_EVERY_S: Final = 5.0
_PARTS_MAX: Final = 20
_EXPIRED_PART: Final = 1000
_RETAINED_PART: Final = 5000


Chore = tuple[float, Callable[[], Awaitable[object]]]
"""Something to do for all, and every how many seconds."""


class Upkeep:
    """Whoever's turn it is does the chores that are due; each is bounded and can be repeated.

    No process is special: when one dies in the middle, the next turn is another one's.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        keep_s: Mapping[JobState, float],
        others: Mapping[str, Chore] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._keep_s = dict(keep_s)
        self._schedules: dict[tuple[str, str, str], CronSchedule] = {}
        self._chores: dict[str, Chore] = {
            "batches and schedules": (0.5, self._often),
            "upkeep": (5.0, self._seldom),
            "retention": (60.0, self._retain),
            **(others or {}),
        }
        self._fault: Exception | None = None
        self._asked_s = dict.fromkeys(self._chores, -inf)

    async def turn(self) -> None:
        """Does what is due and nobody else has done."""
        now_s = self._clock.monotonic_s()
        for name, (every_s, chore) in self._chores.items():
            # Not asked for more often than it can be due: each turn is a write in the store.
            if now_s - self._asked_s[name] < every_s:
                continue
            self._asked_s[name] = now_s
            if await self._store.take_turn(name, every_s):
                await self._do(chore)
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    async def _do(self, chore: Callable[[], Awaitable[object]]) -> None:
        """Does one chore; what it fails with is told when the others are done."""
        try:
            await chore()
        except Exception as error:  # noqa: BLE001 - raised by `turn`
            self._fault = self._fault or error

    async def _often(self) -> None:
        await self._do(self._complete_batches)
        await self._do(self._fire_schedules)

    async def _complete_batches(self) -> None:
        # While the queue of a completion job takes nothing in, the batch waits.
        with contextlib.suppress(ConflictError):
            await self._store.complete_batches()

    async def _seldom(self) -> None:
        for chore in (self._expire, self._quicken, self._store.tidy):
            await self._do(chore)

    async def _fire_schedules(self) -> None:
        now_s = await self._store.now_ms() / 1000
        for row in await self._store.schedules():
            if not row.paused:
                # Each by itself: one that cannot be read, or whose zone this machine does not
                # know, stops no other.
                await self._do(partial(self._fire, row, now_s))

    async def _fire(self, row: ScheduleRow, now_s: float) -> None:
        if row.job is None:
            raise unreadable(row.name, row.trouble)
        last_ms = row.created_ms if row.last_slot_ms is None else row.last_slot_ms
        for slot_s in due(self._schedule(row), last_ms / 1000, now_s, grace_s=_ON_TIME_S):
            # While its queue takes nothing in a slot waits; it may be caught up with.
            with contextlib.suppress(ConflictError):
                await self._store.fire(row.name, int(slot_s * 1000))

    def _schedule(self, row: ScheduleRow) -> CronSchedule:
        key = row.cron, row.zone, row.catch_up
        found = self._schedules.get(key)
        if found is None:
            found = self._schedules[key] = CronSchedule(
                expression=CronExpression.parse(row.cron),
                zone=row.zone,
                catch_up=CatchUp(row.catch_up),
            )
        return found

    async def _expire(self) -> None:
        for _ in range(_PARTS_MAX):
            if await self._store.expire(limit=_EXPIRED_PART) < _EXPIRED_PART:
                return

    async def _retain(self) -> None:
        for _ in range(_PARTS_MAX):
            removed = await self._store.retain(self._keep_s, limit=_RETAINED_PART)
            if removed < _RETAINED_PART:
                return

    async def _quicken(self) -> None:
        await self._store.quicken_limits(step=_QUICKEN_STEP, every_s=_QUICKEN_EVERY_S)
