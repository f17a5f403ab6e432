"""The waiting room in front of a rate: first come, first served, one timer for everybody."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from mailrace.clock import Clock
from mailrace.pool.rate import Rate, Schedule

# A shared limit is taken from its keeper in slices of this length, so that a departure costs no
# round trip; short enough that what a killed process had taken is hardly missed.
_SLICE_S = 0.1
_SLICE_SLOTS_MAX = 1000

SlotKeeper = Callable[[Schedule, int], Awaitable[float]]
"""Takes a number of slots in a row from a state shared with others; returns the first one's time
in Unix seconds."""


class Limiter(Protocol):
    """Lets departures through, never more than its rate allows."""

    async def wait(self) -> None: ...

    @property
    def waiting(self) -> int:
        """How many departures stand in line: more than none says that the limit is what binds."""
        ...


class NoLimit:
    """Everything may go at once."""

    def __init__(self) -> None:
        self.waiting = 0

    async def wait(self) -> None:
        return


class RateLimiter:
    """Holds a rate over everyone in this process who calls `wait`.

    Slots are handed out in the order of the calls. A waiter that is cancelled uses none.
    """

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._schedule = Schedule.of(rate)
        self._clock = clock
        self._next_slot_s = float("-inf")
        self._turn = asyncio.Lock()
        self.waiting = 0

    async def wait(self) -> None:
        self.waiting += 1
        try:
            async with self._turn:
                await self._depart()
        finally:
            self.waiting -= 1

    async def _depart(self) -> None:
        await _sleep_until(self._next_slot_s, self._clock)
        from_s = self._clock.monotonic_s() - self._schedule.grace_s
        _, self._next_slot_s = self._schedule.take(self._next_slot_s, from_s=from_s)


class SharedRateLimiter(RateLimiter):
    """Holds a rate over this process and all others that use the same keeper.

    Slots come in slices. One that could not be used in time is lost, never made up; so is the
    slice that a cancelled waiter was fetching.
    """

    def __init__(self, rate: Rate, clock: Clock, keeper: SlotKeeper) -> None:
        super().__init__(rate, clock)
        self._keeper = keeper
        self._slice = min(_SLICE_SLOTS_MAX, max(1, int(_SLICE_S / self._schedule.interval_s)))
        self._slots = 0

    async def _depart(self) -> None:
        while True:
            if self._slots == 0:
                await self._take_slice()
            slot_s = self._next_slot_s
            await _sleep_until(slot_s, self._clock)
            self._next_slot_s += self._schedule.interval_s
            self._slots -= 1
            if self._clock.monotonic_s() <= slot_s + self._schedule.grace_s:
                return

    async def _take_slice(self) -> None:
        first_unix_s = await self._keeper(self._schedule, self._slice)
        behind_s = self._clock.unix_s() - self._clock.monotonic_s()
        self._next_slot_s, self._slots = first_unix_s - behind_s, self._slice


async def _sleep_until(at_s: float, clock: Clock) -> None:
    left_s = at_s - clock.monotonic_s()
    if left_s > 0:
        await clock.sleep_s(left_s)
