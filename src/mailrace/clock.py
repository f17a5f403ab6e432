"""Time as an argument: the only place that asks the machine what time it is."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What code that waits or stamps may ask.

    `monotonic_s` never goes back and is for durations; `unix_s` is for what is stored or shown.
    Tests hand in a clock that they move by hand.
    """

    def monotonic_s(self) -> float: ...

    def unix_s(self) -> float: ...

    async def sleep_s(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
