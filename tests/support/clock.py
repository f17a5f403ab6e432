"""A clock that stands still until it is moved."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

_NOON_S = 1_800_000_000.0


class VirtualClock:
    """Implements `mailrace.clock.Clock`; reading it is safe from any thread, moving it is not.

    Args:
        auto: Jump to the next sleeper whenever the running loop has nothing else to do: nothing is
            ready, and nothing is under way in a thread that was started through the loop (a
            store's, `asyncio.to_thread`). Sockets and timers of the loop are not waited for.
            Has to be made inside the loop, which has to be asyncio's own.
    """

    def __init__(self, *, auto: bool = False, unix_s: float = _NOON_S) -> None:
        self._now_s = 0.0
        self._unix_s = unix_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._autopilot = _Autopilot(self) if auto else None

    def monotonic_s(self) -> float:
        return self._now_s

    def unix_s(self) -> float:
        return self._unix_s + self._now_s

    async def sleep_s(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), sleeper))
        if self._autopilot is not None:
            self._autopilot.look()
        await sleeper

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> asyncio.Future[None]:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleeper.add_done_callback(lambda waked: None if waked.cancelled() else callback())
        heapq.heappush(self._sleepers, (at_s, next(self._order), sleeper))
        if self._autopilot is not None:
            self._autopilot.look()
        return sleeper

    @property
    def next_s(self) -> float | None:
        """When the next sleeper is to wake, on the monotonic scale."""
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    @property
    def sleepers(self) -> int:
        return sum(not sleeper.done() for _, _, sleeper in self._sleepers)

    def set_back(self, seconds: float) -> None:
        """Sets the wall clock back, as an administrator may; the monotonic one goes on."""
        self._unix_s -= seconds

    def move_to(self, at_s: float) -> None:
        """Moves time on and wakes all who are due."""
        self._now_s = max(self._now_s, at_s)
        while (next_s := self.next_s) is not None and next_s <= self._now_s:
            heapq.heappop(self._sleepers)[2].set_result(None)

    async def advance(self, seconds: float) -> None:
        """Moves time on, stopping wherever somebody wakes, so that they see their own time."""
        until_s = self._now_s + seconds
        await settle()
        while (next_s := self.next_s) is not None and next_s <= until_s:
            self.move_to(next_s)
            await settle()
        self.move_to(until_s)
        await settle()


class _Autopilot:
    """Finds out when the loop has nothing left to do but wait for time to pass."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._looking = False
        self._away = 0
        self._original: Any = self._loop.run_in_executor
        vars(self._loop)["run_in_executor"] = self._run_in_executor

    def look(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self._away:
            return  # its end has us look again
        if vars(self._loop)["_ready"]:
            self.look()
        elif (next_s := self._clock.next_s) is not None:
            self._clock.move_to(next_s)
            self.look()

    def _run_in_executor(self, *args: Any) -> asyncio.Future[Any]:
        work: asyncio.Future[Any] = self._original(*args)
        self._away += 1
        work.add_done_callback(self._back)
        return work

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._away -= 1
        self.look()


async def settle() -> None:
    """Lets everything run that is ready, until the loop would have to wait."""
    loop = asyncio.get_running_loop()
    for _ in range(100):
        await asyncio.sleep(0)
        if not vars(loop)["_ready"]:
            return
