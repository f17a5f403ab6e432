"""A bell that one task waits for, for a while."""

import asyncio

from mailrace.clock import Clock


class Bell:
    """Rings once for however many times it was struck since somebody last listened."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._struck = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._struck = True
        self._wake()

    async def heard_within(self, seconds: float) -> bool:
        """Waits so long at most; whether it rang."""
        if not self._struck:
            self._waiter = asyncio.get_running_loop().create_future()
            alarm = self._clock.call_at_s(self._clock.monotonic_s() + seconds, self._wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
        struck, self._struck = self._struck, False
        return struck

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
