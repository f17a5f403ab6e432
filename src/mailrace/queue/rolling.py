"""Replacing processes one after the other, so that work never stands still."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mailrace.clock import Clock
from mailrace.events import Events
from mailrace.queue.children import Child, Children

# Nothing is to be replaced: looked at again only when somebody asks for it.
_IDLE_S: Final = 3600.0
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartEnded:
    """A rolling restart came to its end.

    Attributes:
        replaced: Processes that were replaced.
        why_not: Why the others were left as they are; empty where there are none.
    """

    replaced: int
    why_not: str = ""


class Rolling:
    """A loop that starts a new process, waits until it works, and drains an old one.

    So there is one more of them for a while. Where a new process dies or does not come to work,
    the others stay as they are.

    Args:
        works: Whether the process of that number works, as the store says.
        start_limit_s: How long a new one may take until it works.
    """

    def __init__(
        self,
        children: Children,
        works: Callable[[int], Awaitable[bool]],
        *,
        clock: Clock,
        events: Events,
        start_limit_s: float,
    ) -> None:
        self._children = children
        self._works = works
        self._clock = clock
        self._events = events
        self._start_limit_s = start_limit_s
        self._old: list[Child] = []
        self._new: Child | None = None
        self._since_s = 0.0
        self._replaced = 0

    @property
    def is_on(self) -> bool:
        return bool(self._old)

    def begin(self) -> int:
        """Has all processes of now replaced; returns how many. Begun again while it is on."""
        self._old = self._children.staying
        return len(self._old)

    def end(self) -> None:
        """Starts nothing new any more, as all are to end. Idempotent."""
        if self._old:
            self._give_up("all processes were told to end")

    async def turn(self) -> float:
        """Goes one step on; returns in how many seconds the next one is due."""
        if not self._old:
            return _IDLE_S
        old = self._old[0]
        if old.gone.is_set():  # replaced, or ended by an order of its own
            self._old.pop(0)
            return self._tell_end() if not self._old else 0.0
        if old.is_leaving:
            return _LOOK_S
        if self._new is None:
            self._new = self._children.add_extra()
            self._since_s = self._clock.monotonic_s()
            return _LOOK_S
        return await self._await_new(old, self._new)

    async def _await_new(self, old: Child, new: Child) -> float:
        if new.deaths or new.gone.is_set():
            return self._give_up("the new process ended before it worked")
        if new.pid and await self._works(new.pid):
            self._children.exchange(old, new)
            self._new = None
            self._replaced += 1
        elif self._clock.monotonic_s() - self._since_s >= self._start_limit_s:
            limit = f"{self._start_limit_s:g} seconds"
            return self._give_up(f"the new process did not work after {limit}")
        return _LOOK_S

    def _give_up(self, why: str) -> float:
        self._old.clear()
        return self._tell_end(why)

    def _tell_end(self, why_not: str = "") -> float:
        if self._new is not None:  # it does not work, or the one it was for ended by itself
            self._new.leave()
        self._events.emit(RestartEnded(replaced=self._replaced, why_not=why_not))
        self._new, self._replaced = None, 0
        return _IDLE_S
