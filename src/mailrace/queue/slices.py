"""How long jobs that wait for nothing may keep the event loop to themselves."""

import asyncio
from collections import deque

from mailrace.clock import Clock

# All workers together: what supplies them and takes their results away comes in between, and needs
# several rounds of the loop for each of its steps (benchmarks/bench_queue.py).
_SLICE_S = 0.0005


class Slices:
    """Slices of time that all workers share; between two of them the loop goes round once.

    Attributes:
        until_s: The end of the present one, on the clock's monotonic scale.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._going_round = False
        self.until_s = clock.monotonic_s() + _SLICE_S

    async def next(self) -> None:
        """Lets others have the loop, first come, first served; the caller may then go on.

        One goes on in each round: the next one follows in the same slice where the first soon had
        to wait for something.
        """
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if not self._going_round:
            self._going_round = True
            loop.call_soon(self._go_round)
        await waiter

    def _go_round(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self.until_s:
            self.until_s = now_s + _SLICE_S
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # cancelled
                waiter.set_result(None)
                break
        self._going_round = bool(self._waiting)
        if self._going_round:
            asyncio.get_running_loop().call_soon(self._go_round)
