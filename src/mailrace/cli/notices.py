"""What a worker says unasked: jobs that failed for good, and what keeps others waiting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from math import inf
from typing import Final

from mailrace.cli.logs import Say, log_end
from mailrace.clock import Clock, SystemClock
from mailrace.events import Events
from mailrace.jobs import Worker
from mailrace.queue import Attempted, JobState, Troubled
from mailrace.queue.store import Store
from mailrace.queue.tally import Tally

_LINES: Final = 20
_MINUTE_S: Final = 60.0
_LOOK_S: Final = 2.0
_TOLD: Final = frozenset({JobState.FAILED, JobState.UNCERTAIN})


class Sparing(Events):
    """Events without those of attempts that completed, in a worker that logs none of them.

    They would be nearly all, and making them would cost each job some percent of its time. An
    ending is counted in the tally before anybody is asked who follows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ended: Mapping[JobState, int] = {}
        self._completed = 0

    def count_by(self, tally: Tally) -> None:
        """From now on leaves out what this tally counts as completed."""
        self._ended = tally.ended

    def followed(self, kind: type) -> bool:
        if kind is Attempted:
            completed = self._ended.get(JobState.COMPLETED, 0)
            if completed != self._completed:
                self._completed = completed
                return False
        return super().followed(kind)


class Failures:
    """A line for each job that failed for good or became uncertain, so many a minute.

    Args:
        ends: Whether to write these lines; the other ones are written anyway.
        kinds: Those that have handlers here.
    """

    def __init__(self, say: Say, clock: Clock, *, ends: bool, kinds: Collection[str]) -> None:
        self._say = say
        self._clock = clock
        self._ends = ends
        self._known = set(kinds)
        self._since_s = -inf
        self._lines = 0
        self._more = 0

    def attempted(self, event: Attempted) -> None:
        state = event.record.state
        if state is JobState.COMPLETED:  # nearly all of them
            return
        if state in _TOLD:
            self._note(event)
        elif event.job.kind not in self._known:
            self._known.add(event.job.kind)
            self._say(
                "no handler here: jobs of this kind are put off",
                kind=event.job.kind,
                queue=event.job.queue,
            )

    def sum_up(self, *, now: bool = False) -> None:
        """Says how many had no line of their own, when their minute is over."""
        if self._more and (now or self._clock.monotonic_s() - self._since_s >= _MINUTE_S):
            self._say(f"{self._more} more failed or are uncertain", jobs=self._more)
            self._more = 0

    def _note(self, event: Attempted) -> None:
        if not self._ends:
            return
        now_s = self._clock.monotonic_s()
        if now_s - self._since_s >= _MINUTE_S:
            self.sum_up()
            self._since_s, self._lines = now_s, 0
        if self._lines == _LINES:
            self._more += 1
            return
        self._lines += 1
        log_end(self._say, event)


class Obstacles:
    """A line for what is in the way, again after a minute if it still is."""

    def __init__(self, say: Say, clock: Clock) -> None:
        self._say = say
        self._clock = clock
        self._said_s: dict[str, float] = {}

    def said(self, problem: str) -> None:
        """Somebody else has written the line already."""
        now_s = self._clock.monotonic_s()
        recent = {text: at for text, at in self._said_s.items() if now_s - at < _MINUTE_S}
        self._said_s = recent | {problem: now_s}

    def note(self, what: str, problem: str) -> None:
        if self._clock.monotonic_s() - self._said_s.get(problem, -inf) >= _MINUTE_S:
            self._say(what, problem=problem)
            self.said(problem)


@contextlib.asynccontextmanager
async def noting(
    say: Say, events: Events, worker: Worker, store: Store, *, ends: bool, kinds: Collection[str]
) -> AsyncIterator[None]:
    """Writes these lines during the block.

    Args:
        ends: As for `Failures`.
    """
    clock = SystemClock()
    failures = Failures(say, clock, ends=ends, kinds=kinds)
    obstacles = Obstacles(say, clock)
    events.follow(Attempted, failures.attempted)
    events.follow(Troubled, lambda event: obstacles.said(str(event.error)))

    async def look() -> None:
        while True:
            if worker.tally.trouble is not None:
                obstacles.note("in trouble", str(worker.tally.trouble))
            trouble: Exception | None = getattr(store, "trouble", None)
            if trouble is not None:
                obstacles.note("no Redis: going on without it", str(trouble))
            failures.sum_up()
            await clock.sleep_s(_LOOK_S)

    looking = asyncio.create_task(look(), name="mailrace notices")
    try:
        yield
    finally:
        looking.cancel()
        failures.sum_up(now=True)
