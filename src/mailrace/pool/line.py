"""The line of those who wait for room in a pool."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from mailrace.pool.job import Job

AnyJob = Job[Any]

# So many who have left may stand in line at any rate.
_GONE_MIN = 64


class Ask:
    """Somebody waits for room.

    Attributes:
        job: For this.
        admit: Called when there is room, with a place taken for the job; or with the error if
            there will be none. Says whether it is still wanted.
        here: It has not left.
    """

    __slots__ = ("admit", "here", "job")

    def __init__(self, job: AnyJob, admit: Callable[[Exception | None], bool]) -> None:
        self.job = job
        self.admit = admit
        self.here = True


class Line:
    """First come, first served inside a priority; ageing sees to it that nobody waits for ever.

    Leaving costs nothing but a mark, from wherever in the line.
    """

    def __init__(self) -> None:
        self._asks: list[tuple[float, int, Ask]] = []
        self._order = itertools.count()
        self._gone = 0

    def __len__(self) -> int:
        return len(self._asks) - self._gone

    def join(self, ask: Ask, turn_s: float) -> None:
        """Puts somebody in line.

        Args:
            turn_s: The lower, the sooner.
        """
        heapq.heappush(self._asks, (turn_s, next(self._order), ask))

    def leave(self, ask: Ask) -> None:
        """Somebody waits no longer; also one who has been served."""
        if not ask.here:
            return
        ask.here = False
        self._gone += 1
        if self._gone > max(_GONE_MIN, len(self._asks) // 2):
            self._asks = [entry for entry in self._asks if entry[2].here]
            heapq.heapify(self._asks)
            self._gone = 0

    def head(self) -> Ask | None:
        """Whose turn it is."""
        while self._asks:
            ask = self._asks[0][2]
            if ask.here:
                return ask
            heapq.heappop(self._asks)
            self._gone -= 1
        return None

    def serve(self) -> None:
        """The head's turn is over; only ever called right after `head`."""
        heapq.heappop(self._asks)[2].here = False

    def dissolve(self) -> list[Ask]:
        """Takes everybody out, in the order of coming."""
        entries, self._asks, self._gone = self._asks, [], 0
        asks = [ask for _, _, ask in sorted(entries, key=lambda entry: entry[1]) if ask.here]
        for ask in asks:
            ask.here = False
        return asks
