"""Claimed jobs on their way to the workers: a small stock, no larger than it needs to be."""

import asyncio
from collections import deque

from mailrace.queue.jobs import ClaimedJob

_STOCK_MAX = 1000
# A stock that lasts about this long makes a claim's round trip disappear.
_LASTS_S = 0.25


class Feed:
    """Hands jobs to workers first in, first out, and wakes whoever fills it.

    The stock grows with the speed at which it is emptied, so that a slow sender does not sit on
    jobs that another process could do.
    """

    def __init__(self, workers: int, wake: asyncio.Event) -> None:
        self._jobs: deque[ClaimedJob] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()
        self._least = workers
        self._claim = workers
        self._filled_s = float("-inf")
        self._closed = False
        self._wake_filler = wake

    @property
    def low(self) -> bool:
        return len(self._jobs) <= self._claim // 2

    def wanted(self, now_s: float) -> int:
        """How many jobs the claim that now follows should ask for.

        Twice as many as the last one if that was used up at once, half as many if it lasted long:
        to be asked once a claim.
        """
        if now_s - self._filled_s < _LASTS_S:
            self._claim = min(_STOCK_MAX, self._claim * 2)
        elif now_s - self._filled_s > 4 * _LASTS_S:
            self._claim = max(self._least, self._claim // 2)
        return self._claim

    def add(self, jobs: list[ClaimedJob], now_s: float) -> None:
        """Takes in what was claimed; nothing is said of a feed that stays empty."""
        if not jobs:
            return
        self._filled_s = now_s
        self._jobs.extend(jobs)
        self._wake(len(jobs))

    def give_back(self, job: ClaimedJob) -> None:
        """Puts a job that was not done behind the others: it may be what is in the way."""
        self._jobs.append(job)
        self._wake(1)

    async def take(self) -> ClaimedJob | None:
        """The next job, as soon as there is one; `None` once the feed is closed."""
        while not self._closed:
            if self._jobs:
                job = self._jobs.popleft()
                if self.low:
                    self._wake_filler.set()
                return job
            self._wake_filler.set()
            taker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled():
                    self._wake(1)  # it was woken for a job: let another one have it
                raise
        return None

    def close(self) -> None:
        """Lets workers go once they have done what they hold."""
        self._closed = True
        self._wake(len(self._takers))

    def drain(self) -> list[ClaimedJob]:
        """Takes everything out."""
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def _wake(self, takers: int) -> None:
        while takers and self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                takers -= 1
