"""The waiting room in front of a rate: first come, first served, one timer for everybody."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mailrace.clock import Clock
from mailrace.pool.allowance import Allowance
from mailrace.pool.rate import Rate, RateLimit

# The least of a grace that is left of it after a long way to its keeper.
_GRACE_MIN_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Slots in a row of a limit, for one user alone.

    Attributes:
        first_in_s: When the first one is, counted from the keeper's present.
        interval_s: From each to the next.
        grace_s: How long after its time a slot may still be used.
        slots: How many.
    """

    first_in_s: float
    interval_s: float
    grace_s: float
    slots: int


SlotKeeper = Callable[[], Awaitable[Slots]]
"""Takes some slots in a row from a state shared with others, as many as it sees fit."""


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


class _Line:
    """Those who wait, in the order of their coming; `async with` lasts from head to departure.

    Only the head looks at the limit and sleeps, so that the others need no timer. Whoever leaves
    does so in constant time from anywhere in the line, where `asyncio.Lock` would search it.
    """

    __slots__ = ("_behind", "_headed")

    def __init__(self) -> None:
        self._behind: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._headed = False

    def __len__(self) -> int:
        return len(self._behind) + self._headed

    async def __aenter__(self) -> None:
        if not self._headed:
            self._headed = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._behind:
                del self._behind[turn]
            else:
                self._next()  # the turn came in the very moment of leaving
            raise

    async def __aexit__(self, *_: object) -> None:
        self._next()

    def _next(self) -> None:
        if self._behind:
            turn, _ = self._behind.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
        else:
            self._headed = False


class RateLimiter:
    """Holds a limit over everyone in this process who calls `wait`.

    Departures go in the order of the calls. A waiter that is cancelled uses nothing.
    """

    def __init__(self, limit: RateLimit | Rate, clock: Clock) -> None:
        self._allowance = Allowance(RateLimit.of(limit))
        self._clock = clock
        self._line = _Line()

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def wait(self, cost: int = 1) -> None:
        """Returns when so many slots are taken.

        Raises:
            MisuseError: The cost is below 1 or more than a window can ever hold.
        """
        self._allowance.limit.check_cost(cost)  # now, not when its turn has come
        async with self._line:
            while wait_s := self._allowance.take(self._clock.monotonic_s(), cost):
                await self._clock.sleep_s(wait_s)


class SharedRateLimiter:
    """Holds a limit over this process and all others that use the same keeper.

    Slots are handed out in the order of the calls and come in slices, so that a departure costs
    no round trip. One that could not be used in time is lost, never made up; so is the slice that
    a cancelled waiter was fetching.

    Attributes:
        interval_s: From one slot to the next, as last told; 0 before the first was asked for.
        until_s: Until when, on the monotonic clock, the slot may be used that the last `wait` took:
            to be read before anything else is awaited.
    """

    def __init__(self, clock: Clock, keeper: SlotKeeper) -> None:
        self._clock = clock
        self._keeper = keeper
        self._line = _Line()
        self._next_slot_s = 0.0
        self._slots = 0
        self.interval_s = 0.0
        self.until_s = 0.0
        self._grace_s = 0.0

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def wait(self) -> None:
        async with self._line:
            await self._depart()

    async def _depart(self) -> None:
        while True:
            if self._slots == 0:
                await self._take_slice()
            slot_s = self._next_slot_s
            left_s = slot_s - self._clock.monotonic_s()
            if left_s > 0:
                await self._clock.sleep_s(left_s)
            self._next_slot_s += self.interval_s
            self._slots -= 1
            self.until_s = slot_s + self._grace_s
            if self._clock.monotonic_s() <= self.until_s:
                return

    async def _take_slice(self) -> None:
        asked_s = self._clock.monotonic_s()
        taken = await self._keeper()
        now_s = self._clock.monotonic_s()
        # The keeper's present was somewhere between the two: a slot is never used before its time,
        # and what it may be late by the way has taken from its grace.
        self._next_slot_s, self._slots = now_s + taken.first_in_s, taken.slots
        self.interval_s = taken.interval_s
        self._grace_s = max(_GRACE_MIN_S, taken.grace_s - (now_s - asked_s))
