"""Departures under several limits at once: a slot of each, all for the same moment."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Final

from mailrace.clock import Clock
from mailrace.queue.limits import LimitRow
from mailrace.queue.store import Rules

# So long the others may wait for the last of them: what they could have let go meanwhile is lost.
_SLACK_S: Final = 0.02
_GRACE_MIN_S: Final = 0.001
_NAMES_MAX: Final = 10_000


class Together:
    """Takes slots of several limits for one moment, each from the store.

    Slices of several limits have times of their own, and the slots of one would lapse while
    another is waited for; so here every departure asks. Who was told to wait for a limit keeps
    the others of this process, who need it too, from asking before its time.

    Args:
        default: What a limit is made from that nobody has set, by its name and the name that the
            queue has for it; `None`: it is an error.
    """

    def __init__(
        self, store: Rules, clock: Clock, default: Callable[[str, str], LimitRow | None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._default = default
        self._asking = asyncio.Lock()
        self._not_before_s: dict[str, float] = {}
        self._intervals_s: dict[tuple[str, ...], float] = {}

    def interval_s(self, limits: Mapping[str, str]) -> float:
        """From one departure to the next under these limits, as last told; 0 before that."""
        return self._intervals_s.get(tuple(limits), 0.0)

    def forget(self, name: str) -> None:
        """A limit is another one: nothing is known of its slots."""
        self._not_before_s.pop(name, None)

    async def wait(self, limits: Mapping[str, str]) -> float:
        """Waits for a slot of each; returns until when, on the monotonic clock, they may be used.

        Args:
            limits: Their names, each with the name that the queue has for it.

        Raises:
            ConflictError: There is no such limit, and no default.
            UnavailableError: The store is out of reach.
        """
        while True:
            await self._sleep_until(self._earliest_s(limits))
            async with self._asking:
                if self._earliest_s(limits) > self._clock.monotonic_s():
                    continue
                found = await self._take(limits)
            if found is not None:
                at_s, grace_s = found
                await self._sleep_until(at_s)
                if self._clock.monotonic_s() <= at_s + grace_s:
                    return at_s + grace_s

    async def _take(self, limits: Mapping[str, str]) -> tuple[float, float] | None:
        """The moment of the slots and their grace; `None` if one of them is not ready."""
        asked_s = self._clock.monotonic_s()
        defaults = {
            name: row
            for name, written in limits.items()
            if (row := self._default(name, written)) is not None
        }
        slot = await self._store.take_together(list(limits), defaults, slack_s=_SLACK_S)
        now_s = self._clock.monotonic_s()
        if len(self._intervals_s) + len(self._not_before_s) > _NAMES_MAX:
            self._intervals_s.clear()
            self._not_before_s.clear()
        self._intervals_s[tuple(limits)] = slot.interval_s
        at_s = now_s + slot.in_s
        if slot.taken:
            return at_s, max(_GRACE_MIN_S, slot.grace_s - (now_s - asked_s))
        self._not_before_s[slot.last] = at_s - _SLACK_S
        return None

    def _earliest_s(self, names: Iterable[str]) -> float:
        return max(self._not_before_s.get(name, -inf) for name in names)

    async def _sleep_until(self, at_s: float) -> None:
        left_s = at_s - self._clock.monotonic_s()
        if left_s > 0:
            await self._clock.sleep_s(left_s)
