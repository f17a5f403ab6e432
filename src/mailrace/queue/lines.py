"""Jobs that wait for the limits of their queues, each queue and tenant in a line of its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import inf
from typing import Final

import msgspec

from mailrace.clock import Clock
from mailrace.pool import SharedRateLimiter
from mailrace.pool.limiter import Slots
from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.limits import LimitRow, limit_name
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.sharing import SLICE_S
from mailrace.queue.store import Rules
from mailrace.queue.together import Together

# A line holds about so much of its limit, so that its slots find somebody to use them.
_AHEAD_S: Final = 0.3

RulesOf = Callable[[str], QueueRules]


class _Line:
    """Those of one queue and tenant who wait."""

    __slots__ = ("jobs", "limits", "task")

    def __init__(self) -> None:
        self.jobs: deque[int] = deque()
        self.limits: Mapping[str, str] = {}
        self.task: asyncio.Task[None] | None = None


class Lines:
    """Holds claimed jobs back until the limits of their queues let them go.

    They wait here and not in a worker, so that a limited tenant keeps nobody busy; how many wait
    is bounded by the limit's own rate, and the rest is not even claimed.

    Args:
        start: Has a job run by a worker.
        on_trouble: Told what the store said when slots could not be taken.
        places: What stands for `{process}` and `{host}` in the names of limits.
        template: The limit that is set under a name with placeholders, if there is one: whatever
            the name stands for gets its rates.
    """

    def __init__(
        self,
        store: Rules,
        clock: Clock,
        *,
        rules: RulesOf,
        start: Callable[[int], object],
        on_trouble: Callable[[Exception], object],
        places: Callable[[], Mapping[str, str]] = dict,
        template: Callable[[str], LimitRow | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._start = start
        self._on_trouble = on_trouble
        self._places = places
        self._template = template
        self._lines: dict[tuple[str, str], _Line] = {}
        self._limiters: dict[str, SharedRateLimiter] = {}
        self._together = Together(store, clock, self._default)
        self._until_s: dict[int, float] = {}

    def names(self, queue: str, tenant: str) -> list[str]:
        """The limits that jobs of a queue and tenant wait for."""
        return list(self._limits(queue, tenant))

    def _limits(self, queue: str, tenant: str) -> dict[str, str]:
        """The same, each with the name as the queue has it."""
        given = {**self._places(), "tenant": tenant}
        return {limit_name(name, given): name for name in self._rules(queue).limits}

    def room(self, queue: str, tenant: str) -> float:
        """How many more jobs may be claimed to wait here."""
        limits = self._limits(queue, tenant)
        if not limits:
            return inf
        line = self._lines.get((queue, tenant))
        waiting = 0 if line is None else len(line.jobs)
        interval_s = self._interval_s(limits)
        return max(0, (max(1, int(_AHEAD_S / interval_s)) if interval_s else 1) - waiting)

    def takes(self, job: ClaimedJob) -> bool:
        """Takes a job into its line; false if nothing limits it."""
        if not self._rules(job.queue).limits:
            return False
        place = job.queue, job.tenant
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line()
        line.jobs.append(job.id)
        if line.task is None:
            self._begin(place, line)
        return True

    def renew(self, changed: Collection[str]) -> None:
        """The rules may be others: nobody goes on waiting for a limit that no longer holds.

        Args:
            changed: Limits that have other rates: the slots taken of them are given up.
        """
        for name in changed:
            self._limiters.pop(name, None)
            self._together.forget(name)
        for place, line in self._lines.items():
            others = line.limits != self._limits(*place)
            if line.task is not None and (others or not line.limits.keys().isdisjoint(changed)):
                line.task.cancel()
                self._begin(place, line)

    def _begin(self, place: tuple[str, str], line: _Line) -> None:
        line.task = asyncio.create_task(self._let_through(place, line))

    def is_late(self, job: ClaimedJob) -> bool:
        """Whether the slots that a job was let go with are too old by now.

        Asked once, when a worker has it: it may have stood in the pool's queue for a while.
        """
        until_s = self._until_s.pop(job.id, None)
        return until_s is not None and self._clock.monotonic_s() > until_s

    async def wait(self, job: ClaimedJob) -> None:
        """Takes slots for a job once more."""
        await self._wait_for_all(self._limits(job.queue, job.tenant))

    def forget(self) -> None:
        """Lets go of everybody who waits: their jobs are no longer this process's."""
        for line in self._lines.values():
            line.jobs.clear()
        self._until_s.clear()

    async def cancel(self) -> None:
        """Ends all lines. Idempotent."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        self._lines.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _let_through(self, place: tuple[str, str], line: _Line) -> None:
        try:
            while line.jobs:
                # Asked for each: a line that is never empty would go on under old rules.
                line.limits = self._limits(*place)
                until_s = await self._wait_for_all(line.limits)
                if line.jobs:
                    job_id = line.jobs.popleft()
                    self._until_s[job_id] = until_s
                    self._start(job_id)
        finally:
            if line.task is asyncio.current_task():  # else another has begun in its place
                line.task = None
            if self._lines.get(place) is line and not line.jobs:
                del self._lines[place]

    async def _wait_for_all(self, limits: Mapping[str, str]) -> float:
        """Takes a slot of each limit; returns until when all of them may be used."""
        if not limits:
            return inf
        while True:
            try:
                if len(limits) > 1:
                    return await self._together.wait(limits)
                limiter = self._limiter(limits)
                await limiter.wait()
            except Exception as error:  # noqa: BLE001 - told; nothing goes out without a slot
                self._on_trouble(error)
                await self._clock.sleep_s(1.0)
            else:
                return limiter.until_s

    def _interval_s(self, limits: Mapping[str, str]) -> float:
        """From one departure to the next; 0 while nothing is known of it."""
        if len(limits) > 1:
            return self._together.interval_s(limits)
        return self._limiter(limits).interval_s

    def _limiter(self, limits: Mapping[str, str]) -> SharedRateLimiter:
        """That of the only limit."""
        ((name, written),) = limits.items()
        limiter = self._limiters.get(name)
        if limiter is None:
            keeper = partial(self._take, name, written)
            limiter = self._limiters[name] = SharedRateLimiter(self._clock, keeper)
        return limiter

    async def _take(self, name: str, written: str) -> Slots:
        # Asked for each time: a template may be set long after the first job waited for it.
        return await self._store.take_slots(name, self._default(name, written), span_s=SLICE_S)

    def _default(self, name: str, written: str) -> LimitRow | None:
        """What the limit is made from if there is none of its name: the template's rates."""
        template = self._template(written) if name != written else None
        if template is None:
            return None
        return msgspec.structs.replace(template, name=name, pace=1.0, next_slot_ms=0.0)
