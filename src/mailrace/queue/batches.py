"""Counted sets of jobs, as values."""

import msgspec

from mailrace.errors import MisuseError
from mailrace.queue.jobs import NewJob, read_job
from mailrace.queue.states import FINAL, JobState


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A counted set of jobs.

    Attributes:
        kind: Which handler its jobs are for.
        spec: What its jobs share, one JSON value.
        created: Whether the call that returned it made it.
        sealed: Nothing more is added to it; when all of it is final, its completion job is made.
        completed: That has happened.
    """

    id: int
    name: str
    kind: str
    spec: msgspec.Raw
    created: bool
    sealed: bool = False
    completed: bool = False


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stands.

    Attributes:
        counts: Jobs by state; every state is there, and the sum is all that were accepted, less
            those that somebody deleted.
        next_due_ms: When the first waiting job that is not due yet will be, Unix milliseconds.
        first_ms: When the first attempt ended; `last_ms`: the last one.
        rate: Attempts ended a second, over the minute before `last_ms`.
    """

    id: int
    name: str
    kind: str
    created_ms: int
    counts: dict[JobState, int]
    next_due_ms: int | None
    first_ms: int | None
    last_ms: int | None
    rate: float
    sealed: bool = False
    completed_ms: int | None = None

    @property
    def accepted(self) -> int:
        return sum(self.counts.values())

    @property
    def final(self) -> int:
        return sum(jobs for state, jobs in self.counts.items() if state in FINAL)


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why jobs of a batch are not well: failed, uncertain or waiting for a retry.

    Attributes:
        reason: What they were grouped by.
        detail: The whole answer to one of them.
    """

    state: JobState
    reason: str
    detail: str
    jobs: int


def read_completion(name: str, text: str | bytes | None) -> NewJob | None:
    """The completion job of a batch as the stores keep it; `None` where it has none.

    Raises:
        MisuseError: Somebody damaged it, or a newer version wrote it.
    """
    if text is None:
        return None
    job, trouble = read_job(text)
    if job is None:
        raise MisuseError(
            f"the completion job of the batch {name!r} cannot be read: {trouble}",
            hint="use the version that made it; until then the batch is not completed",
        )
    return job


def queue_of(batch_id: int) -> str:
    """The queue of a batch that is worked off by runs of its own."""
    return f"batch:{batch_id}"
