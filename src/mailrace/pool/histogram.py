"""How long things take: log-bucket histograms of durations, over sliding windows, without clock."""

from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from operator import add
from typing import Final

from mailrace.errors import MisuseError

RELATIVE_ERROR: Final = 1 / 64
"""By how much a percentile may differ from the exact order statistic: 1.6 %."""

SHORTEST_S: Final = 2.0**-20
"""A shorter duration (under a microsecond) counts as half of this."""

LONGEST_S: Final = 2.0**14
"""A duration of this or more (4.5 hours) counts as this in percentiles; its maximum is exact."""

# The upper bits of a positive double are a logarithmic scale: its exponent, then its leading
# fraction bits. Five of these cut each power of two into 32 equal buckets, whose middle is at most
# 1/64 from anything inside (HdrHistogram). Shifting bits costs half of what a logarithm does.
_FRACTION_BITS: Final = 5
_SHIFT: Final = 52 - _FRACTION_BITS
_NEGATIVE: Final = 1 << (63 - _SHIFT)
# Values wait in a list, which costs an append, and enter the buckets together.
PENDING_MAX: Final = 2000
"""Durations that may be appended between two turns."""
_SLICES: Final = 12


def _key(value_s: float) -> int:
    return _keys((value_s,))[0]


def _keys(values_s: Iterable[float]) -> list[int]:
    """The bucket numbers on a scale that goes on beyond both ends."""
    return [bits >> _SHIFT for bits in memoryview(array("d", values_s)).cast("B").cast("Q")]


def _lower_s(key: int) -> float:
    """The least duration in a bucket."""
    return memoryview(array("Q", (key << _SHIFT,))).cast("B").cast("d")[0]


_FIRST: Final = _key(SHORTEST_S) - 1
_LAST: Final = _key(LONGEST_S) - _FIRST


def _middle_s(bucket: int) -> float:
    if bucket == 0:
        return SHORTEST_S / 2
    if bucket == _LAST:
        return LONGEST_S
    return (_lower_s(_FIRST + bucket) + _lower_s(_FIRST + bucket + 1)) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What durations were like. Everything is 0 where there were none.

    Attributes:
        count: How many durations.
        mean_s: Exact, in seconds, as are the total and the maximum.
        total_s: Their sum.
        p50_s: The median: the least duration that half of them do not exceed, give or take
            `RELATIVE_ERROR`.
        p95_s: The same for 95 of a hundred.
        p99_s: The same for 99 of a hundred.
        max_s: The longest.
    """

    count: int
    mean_s: float
    total_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tally:
    """Durations by bucket, worked out once for all histograms that take them."""

    counts: dict[int, int]
    count: int
    total_s: float
    max_s: float


class Histogram:
    """Counts durations in buckets that grow with them, in 10,000 bytes whatever their number.

    Durations are finite seconds. Between `SHORTEST_S` and `LONGEST_S` a percentile is within
    `RELATIVE_ERROR` of the exact order statistic; a negative duration counts as the shortest.
    """

    __slots__ = ("buckets", "count", "max_s", "total_s")

    def __init__(self) -> None:
        self.buckets = array("Q", bytes(8 * (_LAST + 1)))
        self.count = 0
        self.total_s = 0.0
        self.max_s = 0.0

    def extend(self, values_s: Sequence[float]) -> None:
        """Counts durations. Many at once are cheaper than one by one."""
        if values_s:
            self.take(_tally(values_s))

    def take(self, tally: _Tally) -> None:
        counts = self.buckets
        for bucket, number in tally.counts.items():
            counts[bucket] += number
        self.count += tally.count
        self.total_s += tally.total_s
        self.max_s = max(self.max_s, tally.max_s)

    def merge(self, other: "Histogram") -> None:
        """Counts everything the other one has counted."""
        self.buckets = array("Q", map(add, self.buckets, other.buckets))
        self.count += other.count
        self.total_s += other.total_s
        self.max_s = max(self.max_s, other.max_s)

    def percentile_s(self, percent: int) -> float:
        """The least duration that `percent` (1 to 100) of a hundred do not exceed; 0 for none."""
        return self._percentiles_s(percent)[0]

    def summary(self) -> Summary:
        p50_s, p95_s, p99_s = self._percentiles_s(50, 95, 99)
        return Summary(
            count=self.count,
            mean_s=self.total_s / self.count if self.count else 0.0,
            total_s=self.total_s,
            p50_s=p50_s,
            p95_s=p95_s,
            p99_s=p99_s,
            max_s=self.max_s,
        )

    def _percentiles_s(self, *percents: int) -> list[float]:
        if not self.count:
            return [0.0] * len(percents)
        up_to = list(accumulate(self.buckets))
        # The nearest rank, in whole numbers: 0.95 * 20 must not become the 20th of 20.
        ranks = [-(-self.count * percent // 100) for percent in percents]
        return [min(_middle_s(bisect_left(up_to, rank)), self.max_s) for rank in ranks]


def _tally(values_s: Sequence[float]) -> _Tally:
    counts: dict[int, int] = {}
    # Ends are cut off once per key and not once per duration.
    for key, number in Counter(_keys(values_s)).items():
        bucket = key - _FIRST
        if not 0 < bucket < _LAST:
            # The sign is the uppermost bit, so that anything negative has the largest keys.
            bucket = 0 if bucket < 0 or key >= _NEGATIVE else min(bucket, _LAST)
        counts[bucket] = counts.get(bucket, 0) + number
    return _Tally(counts=counts, count=len(values_s), total_s=sum(values_s), max_s=max(values_s))


class _Window:
    """The last `window_s` seconds as a row of slices; whole slices are forgotten."""

    __slots__ = ("_slices", "slice_s", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.slice_s = window_s / _SLICES
        self._slices: deque[tuple[int, Histogram]] = deque()

    def at(self, now_s: float) -> Histogram:
        """The slice that takes what happens now."""
        number = self._forget(now_s)
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append((number, Histogram()))
        return self._slices[-1][1]

    def ends_s(self, now_s: float) -> float:
        """When the slice of now ends."""
        return (now_s // self.slice_s + 1) * self.slice_s

    def merged(self, now_s: float) -> Histogram:
        self._forget(now_s)
        whole = Histogram()
        for _, part in self._slices:
            whole.merge(part)
        return whole

    def _forget(self, now_s: float) -> int:
        number = int(now_s // self.slice_s)
        while self._slices and self._slices[0][0] < number - _SLICES:
            self._slices.popleft()
        return number


class WindowedHistogram:
    """Durations of the last minutes, in sliding windows, and how many there ever were.

    A window is made of twelve slices (5 s each for a minute) and the one that is filling: it
    holds everything of the last `window_s` and nothing older than `window_s * 13 / 12`.

    Who has a duration for it at every turn of a hot path may do the work of `add` on its own:
    `append` the duration, and `turn` first when it is `turn_s` or so many have been appended.

    It takes at most 10,000 bytes for each slice and 64,000 for durations that wait for their
    bucket: 324,000 bytes with the two default windows. For one thread.
    """

    __slots__ = ("_count", "_pending", "_pending_s", "_total_s", "_windows", "append", "turn_s")

    def __init__(self, window_s: Sequence[float] = (60.0, 300.0)) -> None:
        for length_s in window_s:
            if not (isfinite(length_s) and length_s > 0):
                raise MisuseError(
                    f"a window of {length_s} s cannot be", hint="give a number above 0"
                )
        self._windows = {length_s: _Window(length_s) for length_s in window_s}
        self._pending: list[float] = []
        self.append = self._pending.append
        self._pending_s = 0.0
        self.turn_s = float("-inf")
        self._count = 0
        self._total_s = 0.0

    def add(self, value_s: float, now_s: float) -> None:
        """Counts a duration that ended now.

        Args:
            value_s: Finite seconds.
            now_s: Monotonic seconds; an earlier one than before counts as the one before.
        """
        if now_s >= self.turn_s or len(self._pending) >= PENDING_MAX:
            self.turn(now_s)
        self.append(value_s)

    @property
    def count(self) -> int:
        """How many durations were ever added."""
        return self._count + len(self._pending)

    @property
    def total_s(self) -> float:
        """The sum of all durations ever added, in seconds."""
        return self._total_s + sum(self._pending)

    def summary(self, window_s: float, now_s: float) -> Summary:
        """What the durations of a window were like. Costs about half a millisecond.

        Raises:
            MisuseError: There is no such window.
        """
        window = self._windows.get(window_s)
        if window is None:
            known = ", ".join(f"{length_s:g}" for length_s in self._windows)
            raise MisuseError(f"there is no window of {window_s} s", hint=f"ask for one of {known}")
        self._fold()
        return window.merged(now_s).summary()

    def turn(self, now_s: float) -> None:
        """Begins a slice, or goes on with an empty list in the same one."""
        self._fold()
        self._pending_s = now_s
        self.turn_s = min(
            (window.ends_s(now_s) for window in self._windows.values()), default=float("inf")
        )

    def _fold(self) -> None:
        """Puts what waits into the slices of the time at which it was added."""
        values_s = self._pending
        if not values_s:
            return
        tally = _tally(values_s)
        for window in self._windows.values():
            window.at(self._pending_s).take(tally)
        self._count += tally.count
        self._total_s += tally.total_s
        values_s.clear()
