"""Claimed jobs that are not begun."""

from collections import deque
from collections.abc import Collection

from mailrace.queue.jobs import ClaimedJob


class Stock:
    """Keeps claimed jobs in the order in which they are to be begun.

    A job is *held* from its claim on, and *ready* once nothing but a worker is missing.

    Args:
        chunked: Kinds of which one worker takes several at once.
    """

    __slots__ = ("_along", "_by_kind", "_held", "_ready")

    def __init__(self, chunked: Collection[str] = ()) -> None:
        self._held: dict[int, ClaimedJob] = {}
        self._ready: deque[int] = deque()
        self._by_kind: dict[str, deque[int]] = {kind: deque() for kind in chunked}
        # Jobs that went along in a chunk, by how often: so many of their places in the line of
        # those that are ready mean nothing any more.
        self._along: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def ready(self) -> int:
        """Upper bound of the jobs that a worker could begin."""
        return len(self._ready)

    def held(self) -> Collection[ClaimedJob]:
        """All of them, ready or not."""
        return self._held.values()

    def hold(self, job: ClaimedJob) -> None:
        self._held[job.id] = job

    def make_ready(self, job_id: int) -> bool:
        """Lets a held job be begun; false if it was given up meanwhile."""
        job = self._held.get(job_id)
        if job is None:
            return False
        self._ready.append(job_id)
        if job.kind in self._by_kind:
            self._by_kind[job.kind].append(job_id)
        return True

    def take(self) -> ClaimedJob | None:
        """Takes the job that is to be begun next."""
        ready, held = self._ready, self._held
        while ready:
            job_id = ready.popleft()
            if self._along and self._went_along(job_id):
                continue
            job = held.pop(job_id, None)
            if job is None:
                continue
            if job.kind in self._by_kind:
                self._by_kind[job.kind].remove(job_id)  # it is the first one there
            return job
        return None

    def _went_along(self, job_id: int) -> bool:
        times = self._along.pop(job_id, 0)
        if times > 1:
            self._along[job_id] = times - 1
        return times > 0

    def take_more(self, kind: str, most: int) -> list[ClaimedJob]:
        """Takes up to so many others of a kind that are ready."""
        jobs: list[ClaimedJob] = []
        ids = self._by_kind[kind]
        while ids and len(jobs) < most:
            job_id = ids.popleft()
            job = self._held.pop(job_id, None)
            if job is not None:
                self._along[job_id] = self._along.get(job_id, 0) + 1
                jobs.append(job)
        return jobs

    def take_out(self, job_id: int) -> ClaimedJob | None:
        """Takes out one job that is not to be begun, wherever it stands."""
        job = self._held.pop(job_id, None)
        if job is None:
            return None
        for ids in (self._ready, self._by_kind.get(job.kind)):
            if ids and job_id in ids:
                ids.remove(job_id)
        return job

    def give_up(self) -> list[ClaimedJob]:
        """Takes out everything."""
        jobs = list(self._held.values())
        self._held.clear()
        self._ready.clear()
        self._along.clear()
        for ids in self._by_kind.values():
            ids.clear()
        return jobs
