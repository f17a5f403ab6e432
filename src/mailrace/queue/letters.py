"""How many jobs became dead letters, by the kind of their error, since somebody began to count."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from mailrace.clock import Clock
from mailrace.queue.figures import MINUTE_MS
from mailrace.queue.jobrows import EndedCount, JobFilter
from mailrace.queue.states import JobState
from mailrace.queue.totals import Part, Totals

EVERY_S: Final = 30.0
# The rows of the slices are grouped anew each time: many failures make it rarer.
_SHARE: Final = 30
# A job has the time at which its attempt ended; the store may hear of that after a rescue.
_LATE_MS: Final = 300_000
_SLICES_MAX: Final = 60

Letter = tuple[str, str]
"""A queue, and a category of errors."""


class LetterStore(Protocol):
    """Where dead letters are."""

    async def ended_counts(self, where: JobFilter) -> list[EndedCount]: ...


class DeadLetters:
    """Counts them from the first reading on: what failed a minute ago is known, not each row.

    What the store hears of more than five minutes late is not counted.
    """

    def __init__(self, store: LetterStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._totals: Totals[Letter] = Totals()
        self._read_ms: int | None = None
        self._next_s = clock.monotonic_s()

    async def read(self, now_ms: int) -> dict[Letter, int]:
        """By queue and category; looked up every half minute, for a thirtieth of the time at most.

        Raises:
            UnavailableError: The store is out of reach, and nothing has changed.
        """
        began_s = self._clock.monotonic_s()
        if began_s >= self._next_s:
            parts = [
                part
                for start_ms in self._slices(now_ms)
                for part in _parts(start_ms, await self._store.ended_counts(_failed_in(start_ms)))
            ]
            self._totals.add(parts, settled_ms=_slice_of(now_ms - _LATE_MS))
            self._read_ms = now_ms
            took_s = self._clock.monotonic_s() - began_s
            self._next_s = began_s + max(EVERY_S, _SHARE * took_s)
        return self._totals.now()

    def _slices(self, now_ms: int) -> range:
        since_ms = now_ms if self._read_ms is None else self._read_ms
        last_ms = _slice_of(now_ms)
        first_ms = max(_slice_of(since_ms - _LATE_MS), last_ms - _SLICES_MAX * MINUTE_MS)
        return range(first_ms, last_ms + 1, MINUTE_MS)


def _slice_of(at_ms: int) -> int:
    return at_ms - at_ms % MINUTE_MS


def _failed_in(start_ms: int) -> JobFilter:
    return JobFilter(
        states=(JobState.FAILED,), ended_after_ms=start_ms, ended_before_ms=start_ms + MINUTE_MS
    )


def _parts(start_ms: int, groups: Sequence[EndedCount]) -> Iterator[Part[Letter]]:
    found: Counter[Letter] = Counter()
    for group in groups:
        found[group.queue, group.category or "none"] += group.jobs
    return (Part(start_ms, letter, jobs) for letter, jobs in found.items())
