"""Counters that only rise, from slices of time that are read again until they are settled."""

from collections import Counter
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

_K = TypeVar("_K")


class Part(NamedTuple, Generic[_K]):
    """What one slice of time has brought so far.

    Attributes:
        start_ms: When the slice begins; the same slice has the same one each time.
    """

    start_ms: int
    key: _K
    jobs: int


class Totals(Generic[_K]):
    """Sums up what slices gain from one reading to the next.

    Kept counts fall when old jobs are removed, which a counter must not. A slice that falls, since
    somebody deleted jobs of it, takes nothing away.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, _K], int] = {}
        self._gained: Counter[_K] = Counter()
        self._begun = False

    def add(self, parts: Iterable[Part[_K]], *, settled_ms: int) -> None:
        """Takes in a reading; the first one is where counting begins, and counts nothing.

        Args:
            parts: Each slice and key once.
            settled_ms: Slices that begin before are not read again.
        """
        for start_ms, key, jobs in parts:
            gain = jobs - self._seen.get((start_ms, key), 0)
            if gain > 0:
                self._seen[start_ms, key] = jobs
                if self._begun:
                    self._gained[key] += gain
        self._begun = True
        self._seen = {at: jobs for at, jobs in self._seen.items() if at[0] >= settled_ms}

    def now(self) -> dict[_K, int]:
        """What was gained, by key."""
        return dict(self._gained)
