"""The jobs that wait in a pool: by priority, first in first out inside one, none for ever.

Pure: no clock and no loop, so that it can be compared with a plain model.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

from mailrace.pool.job import Job
from mailrace.pool.states import JobState

_AVAILABLE = JobState.AVAILABLE
AnyJob = Job[Any]

# So many withdrawn jobs may stand among the waiting ones at any rate.
_DEAD_MIN = 64


class Lane(Protocol):
    """The waiting jobs of one priority."""

    @property
    def push(self) -> Callable[[AnyJob], None]: ...

    def head(self) -> AnyJob | None:
        """The job whose turn it is; `None` if there is none, or none that may go now."""
        ...

    def pop(self) -> None:
        """Takes the head out; only ever called right after `head`."""
        ...

    def oldest(self) -> AnyJob | None:
        """The one that came first, held or not."""
        ...

    def latest(self) -> AnyJob | None:
        """The one that came last, held or not."""
        ...

    def jobs(self) -> Iterator[AnyJob]: ...


class FifoLane:
    """First in, first out. A job that was withdrawn stays behind until it comes to the front."""

    __slots__ = ("jobs_in_order", "push")

    def __init__(self) -> None:
        self.jobs_in_order: deque[AnyJob] = deque()
        # No frame of ours around it, here for every job (benchmarks/bench_pool.py).
        self.push = self.jobs_in_order.append

    def head(self) -> AnyJob | None:
        jobs = self.jobs_in_order
        while jobs:
            if jobs[0].state is _AVAILABLE:
                return jobs[0]
            jobs.popleft()
        return None

    def pop(self) -> None:
        self.jobs_in_order.popleft()

    def oldest(self) -> AnyJob | None:
        return self.head()

    def latest(self) -> AnyJob | None:
        jobs = self.jobs_in_order
        while jobs:
            if jobs[-1].state is _AVAILABLE:
                return jobs[-1]
            jobs.pop()
        return None

    def jobs(self) -> Iterator[AnyJob]:
        return (job for job in self.jobs_in_order if job.state is _AVAILABLE)


class KeyedLane:
    """Keys take turns, one job each; first in, first out inside a key; held keys sit out.

    Args:
        held: The keys whose limit or breaker holds them back, shared by all lanes of a backlog.
    """

    __slots__ = ("_by_key", "_held", "_in_turns", "_turns")

    def __init__(self, held: set[Hashable]) -> None:
        self._by_key: dict[Hashable, FifoLane] = {}
        self._turns: deque[Hashable] = deque()
        self._in_turns: set[Hashable] = set()
        self._held = held

    def push(self, job: AnyJob) -> None:
        key = job.terms.key
        lane = self._by_key.get(key)
        if lane is None:
            lane = self._by_key[key] = FifoLane()
            self._take_turns(key)
        lane.push(job)

    def head(self) -> AnyJob | None:
        while self._turns:
            key = self._turns[0]
            if key not in self._held:
                if (job := self._by_key[key].head()) is not None:
                    return job
                del self._by_key[key]
            self._turns.popleft()
            self._in_turns.discard(key)
        return None

    def pop(self) -> None:
        key = self._turns.popleft()
        self._by_key[key].pop()
        self._turns.append(key)

    def release(self, key: Hashable) -> None:
        """Lets a key take its turns again; the caller has taken it out of the held ones."""
        if key in self._by_key:
            self._take_turns(key)

    def oldest(self) -> AnyJob | None:
        heads = (lane.oldest() for lane in self._by_key.values())
        return min(filter(None, heads), key=_came, default=None)

    def latest(self) -> AnyJob | None:
        tails = (lane.latest() for lane in self._by_key.values())
        return max(filter(None, tails), key=_came, default=None)

    def jobs(self) -> Iterator[AnyJob]:
        for lane in self._by_key.values():
            yield from lane.jobs()

    def _take_turns(self, key: Hashable) -> None:
        if key not in self._in_turns and key not in self._held:
            self._in_turns.add(key)
            self._turns.append(key)


class Backlog:
    """Priorities with ageing.

    A job that has waited `ageing_s` seconds longer than another overtakes it although that one is
    of the next higher priority: so no priority starves, however many come above it.

    Args:
        keyed: Keys take turns and can be held; otherwise arrival alone counts.
    """

    def __init__(self, *, ageing_s: float, keyed: bool) -> None:
        self.ageing_s = ageing_s
        self.keyed = keyed
        self.held: set[Hashable] = set()
        self._lanes: dict[int, Lane] = {}
        # Nearly every pool has jobs of one priority and no keys: their lane is at hand.
        self._only: deque[AnyJob] | None = None
        self._only_level: int | None = None
        self._count = 0
        self._dead = 0

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def push(self, job: AnyJob) -> None:
        level = job.terms.level
        self._count += 1
        if level == self._only_level and self._only is not None:
            self._only.append(job)
            return
        lane = self._lanes.get(level)
        if lane is None:
            lane = self._new_lane(level)
        lane.push(job)

    def unpop(self) -> None:
        """What was popped is withdrawn instead, in a moment; it is out of its lane already."""
        self._count += 1
        self._dead -= 1

    def withdrawn(self) -> None:
        """A waiting job leaves by another way: its state says so in a moment."""
        self._count -= 1
        self._dead += 1

    def tidy(self) -> None:
        """Leaves the withdrawn jobs behind, once they are many."""
        if self._dead > max(_DEAD_MIN, self._count):
            self._rebuild()

    def change(self, *, ageing_s: float, keyed: bool) -> None:
        """Goes on with other rules; the order inside a key and priority stays."""
        self.ageing_s = ageing_s
        if keyed != self.keyed:
            self.keyed = keyed
            self.held.clear()
            self._rebuild()

    def head(self) -> AnyJob | None:
        """The job to run next; `None` if there is none that may."""
        if self._only is not None:
            jobs = self._only
            while jobs:
                if jobs[0].state is _AVAILABLE:
                    return jobs[0]
                jobs.popleft()
            return None
        lane = self._next_lane()
        return None if lane is None else lane.head()

    def pop(self) -> AnyJob | None:
        """Takes out the job to run next."""
        if self._only is not None:
            jobs = self._only
            while jobs:
                job = jobs.popleft()
                if job.state is _AVAILABLE:
                    self._count -= 1
                    return job
            return None
        lane = self._next_lane()
        if lane is None or (head := lane.head()) is None:
            return None
        lane.pop()
        self._count -= 1
        return head

    def hold(self, key: Hashable) -> None:
        """Lets the jobs of a key wait where they are until `release`."""
        self.held.add(key)

    def release(self, key: Hashable) -> None:
        if key in self.held:
            self.held.discard(key)
            for lane in self._lanes.values():
                if isinstance(lane, KeyedLane):
                    lane.release(key)

    def jobs(self) -> Iterator[AnyJob]:
        """All that wait, the higher priorities first."""
        for level in sorted(self._lanes, reverse=True):
            yield from self._lanes[level].jobs()

    def oldest(self) -> AnyJob | None:
        """The one that has waited longest."""
        heads = (lane.oldest() for lane in self._lanes.values())
        return min(filter(None, heads), key=_came, default=None)

    def lowest(self) -> AnyJob | None:
        """Of the lowest priority, the one that came last."""
        for level in sorted(self._lanes):
            if (last := self._lanes[level].latest()) is not None:
                return last
        return None

    def _new_lane(self, level: int) -> Lane:
        lane: Lane = KeyedLane(self.held) if self.keyed else FifoLane()
        self._lanes[level] = lane
        self._only = self._only_level = None
        if len(self._lanes) == 1 and isinstance(lane, FifoLane):
            self._only, self._only_level = lane.jobs_in_order, level
        return lane

    def _next_lane(self) -> Lane | None:
        if len(self._lanes) == 1:
            return next(iter(self._lanes.values()))
        best: Lane | None = None
        best_s = float("inf")
        for level, lane in self._lanes.items():
            head = lane.head()
            # As if it had come so much earlier: a constant of the job, whatever the time is now.
            if head is not None and (turn_s := head.queued_s - level * self.ageing_s) < best_s:
                best, best_s = lane, turn_s
        return best

    def _rebuild(self) -> None:
        """Leaves the withdrawn jobs behind: a queue of nothing else must not grow."""
        jobs = sorted(self.jobs(), key=_came)
        self._lanes.clear()
        self._only = self._only_level = None
        self._count = self._dead = 0
        for job in jobs:
            self.push(job)


def _came(job: AnyJob) -> tuple[float, int]:
    return job.queued_s, job.id
