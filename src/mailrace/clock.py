"""Time as an argument: the only place that asks the machine what time it is."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Alarm(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> object: ...


class Clock(Protocol):
    """What code that waits or stamps may ask.

    `monotonic_s` never goes back and is for durations; `unix_s` is for what is stored or shown.
    Tests hand in a clock that they move by hand.
    """

    def monotonic_s(self) -> float: ...

    def unix_s(self) -> float: ...

    async def sleep_s(self, seconds: float) -> None: ...

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> Alarm:
        """Has the running loop call back at a moment of the monotonic scale, never earlier."""
        ...


class SystemClock:
    """The machine's clocks."""

    # No frame of ours around it: a pool asks for every job (benchmarks/bench_pool.py).
    monotonic_s = staticmethod(time.monotonic)

    def unix_s(self) -> float:
        return time.time()

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> Alarm:
        return _Alarm(at_s, callback)


class _Alarm:
    """A timer of the loop that is set anew where the loop's own clock ran ahead of ours."""

    __slots__ = ("_at_s", "_callback", "_handle")

    def __init__(self, at_s: float, callback: Callable[[], object]) -> None:
        self._at_s = at_s
        self._callback = callback
        self._set(at_s - time.monotonic())

    def cancel(self) -> None:
        self._handle.cancel()

    def _set(self, left_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle = loop.call_later(max(0.0, left_s), self._ring)

    def _ring(self) -> None:
        left_s = self._at_s - time.monotonic()
        if left_s > 0:  # uvloop counts whole milliseconds
            self._set(left_s)
        else:
            self._callback()
