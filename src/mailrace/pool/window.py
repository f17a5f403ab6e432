"""A count over a sliding window, in bounded memory."""

from typing import Final

_BUCKETS: Final = 10
# A bucket is forgotten as a whole, so the oldest tenth of the window may be missing already.
SURE: Final = (_BUCKETS - 1) / _BUCKETS
"""The share of the window that is counted at every moment; what is older than the window never."""


class SlidingCount:
    """How often something happened in the last `window_s` seconds.

    A ring of ten buckets: adding and asking are O(1), whatever was counted. Time that goes back
    is taken for the latest known.
    """

    __slots__ = ("_at", "_bucket_s", "_ends_s", "_ring", "_total")

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self._ring = [0] * _BUCKETS
        self._at = 0
        self._ends_s = float("-inf")
        self._total = 0

    def add(self, now_s: float) -> None:
        if now_s >= self._ends_s:
            self._turn(now_s)
        self._ring[self._at] += 1
        self._total += 1

    def total_at(self, now_s: float) -> int:
        if now_s >= self._ends_s:
            self._turn(now_s)
        return self._total

    def _turn(self, now_s: float) -> None:
        late = (now_s - self._ends_s) / self._bucket_s
        if late >= _BUCKETS - 1:
            self._ring = [0] * _BUCKETS
            self._total = 0
            self._ends_s = now_s + self._bucket_s
            return
        for _ in range(int(late) + 1):
            self._at = (self._at + 1) % _BUCKETS
            self._total -= self._ring[self._at]
            self._ring[self._at] = 0
            self._ends_s += self._bucket_s
