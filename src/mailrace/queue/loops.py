"""The loops of a process: each is watched, and begun again when it fails."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from mailrace.clock import Clock
from mailrace.events import Events
from mailrace.pool.driving import is_cancelled

_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 5.0

Turn = Callable[[], Awaitable[float]]
"""One useful turn of a loop; returns in how many seconds the next one is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFailed:
    """A turn of a loop ended with an error; the loop goes on after a pause."""

    name: str
    error: Exception
    again_in_s: float


class Loops:
    """Named loops that go on until they are cancelled, whatever their turns end with.

    When each last did something useful is known: a loop that stands still shows.

    Attributes:
        faults: By loop: what its last turn failed with, if it did.
    """

    def __init__(self, clock: Clock, rng: Random, events: Events) -> None:
        self._clock = clock
        self._rng = rng
        self._events = events
        self._tasks: list[asyncio.Task[None]] = []
        self._useful_s: dict[str, float] = {}
        self._early: dict[str, asyncio.Event] = {}
        self.faults: dict[str, Exception] = {}

    def start(self, name: str, turn: Turn, *, timed: bool = True) -> None:
        """Begins a loop.

        Args:
            timed: Whether to keep when it was last useful.
        """
        if timed:
            self._useful_s[name] = self._clock.monotonic_s()
        self._early[name] = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._go_on(name, turn), name=f"mailrace {name}"))

    def hurry(self, name: str) -> None:
        """Has a loop take its next turn now."""
        self._early[name].set()

    def ages_s(self) -> dict[str, float]:
        """By loop: how long ago its last useful turn ended."""
        now_s = self._clock.monotonic_s()
        return {name: now_s - useful_s for name, useful_s in self._useful_s.items()}

    async def cancel(self) -> None:
        """Ends all of them. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _go_on(self, name: str, turn: Turn) -> None:
        backoff_s = _BACKOFF_S
        while True:
            try:
                wait_s = await _one(turn)
            except Exception as error:  # noqa: BLE001 - told, and tried again: that is its purpose
                # Jittered, or all processes would come back to a store in the same moment.
                wait_s = backoff_s * (0.5 + self._rng.random() / 2)
                backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)
                self.faults[name] = error
                self._tell(LoopFailed(name=name, error=error, again_in_s=wait_s))
            else:
                backoff_s = _BACKOFF_S
                self.faults.pop(name, None)
                if name in self._useful_s:
                    self._useful_s[name] = self._clock.monotonic_s()
            if wait_s > 0:
                await self._rest(name, wait_s)
            else:
                await asyncio.sleep(0)

    def _tell(self, failed: LoopFailed) -> None:
        """A follower that raises ends no loop: its fault goes where asyncio's own go."""
        try:
            self._events.emit(failed)
        except Exception as error:  # noqa: BLE001 - any follower of anybody's
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a follower of {failed.name} failed", "exception": error}
            )

    async def _rest(self, name: str, wait_s: float) -> None:
        early = self._early[name]
        if not early.is_set():
            await pause(wait_s, early, self._clock)
        early.clear()


async def _one(turn: Turn) -> float:
    """One turn; cancelled from within and not by whoever ends the loop, it has failed."""
    try:
        return await turn()
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise RuntimeError("what it waited for was cancelled") from error


async def pause(seconds: float, ended: asyncio.Event, clock: Clock) -> None:
    """Waits, but not longer than until `ended` is set."""
    if ended.is_set():
        return
    sleep = asyncio.ensure_future(clock.sleep_s(seconds))
    stop = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((sleep, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleep.cancel()
        stop.cancel()
