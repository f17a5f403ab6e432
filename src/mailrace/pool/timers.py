"""One heap for everything in a pool that has its time: one alarm of the loop serves them all."""

import heapq
import itertools
from collections.abc import Callable

from mailrace.clock import Alarm, Clock

# Cancelled timers stay in the heap until they are half of it; fewer than this are left alone.
_DEAD_MIN = 64


class Timer:
    """A callback and its time; cancelling it twice, or after it rang, does nothing."""

    __slots__ = ("_timers", "at_s", "callback")

    def __init__(self, at_s: float, callback: Callable[[], object], timers: "Timers") -> None:
        self.at_s = at_s
        self.callback: Callable[[], object] | None = callback
        self._timers = timers

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._timers.forget()


class Timers:
    """Calls back in the order of time, and in the order of setting where that is equal.

    Attributes:
        lag_s: By how much the loop came late to the last alarm, in seconds.
        rang_s: When that was.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._dead = 0
        self.lag_s = 0.0
        self.rang_s = float("-inf")
        self._alarm: Alarm | None = None
        self._alarm_s = float("inf")

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def at(self, at_s: float, callback: Callable[[], object]) -> Timer:
        if at_s < self._alarm_s:  # first of all: off the loop it fails, and nothing has changed
            self._set_alarm_at(at_s)
        timer = Timer(at_s, callback, self)
        heapq.heappush(self._heap, (at_s, next(self._order), timer))
        return timer

    def forget(self) -> None:
        """A timer was cancelled: it stays where it is until there are too many of its kind."""
        self._dead += 1
        if self._dead >= _DEAD_MIN and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def late_s(self, now_s: float) -> float:
        """For how long the earliest timer has been due."""
        return max(0.0, now_s - self._heap[0][0]) if self._heap else 0.0

    def clear(self) -> None:
        """Forgets every timer."""
        for _, _, timer in self._heap:
            timer.callback = None
        self._heap.clear()
        self._dead = 0
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._dead -= 1
        self._alarm_s = float("inf")
        if heap:
            self._set_alarm_at(heap[0][0])

    def _set_alarm_at(self, at_s: float) -> None:
        alarm = self._clock.call_at_s(at_s, self._ring)
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_s = alarm, at_s

    def run_due(self) -> None:
        """Calls all who are due, now and not when the loop comes to it."""
        if self._heap and self._heap[0][0] <= self._clock.monotonic_s():
            self._ring()

    def _ring(self) -> None:
        """Calls all who are due; should one raise, the alarm is set for the others all the same."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        heap, now_s = self._heap, self._clock.monotonic_s()
        self.lag_s = self.late_s(now_s)
        self.rang_s = now_s
        self._alarm_s = float("-inf")  # what is set meanwhile needs no alarm of its own
        try:
            while heap and heap[0][0] <= now_s:
                timer = heapq.heappop(heap)[2]
                callback, timer.callback = timer.callback, None
                if callback is None:
                    self._dead -= 1
                else:
                    callback()
                    heap = self._heap
        finally:
            self._set_alarm()
