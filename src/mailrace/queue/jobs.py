"""Durable jobs as values: what goes into a store and what comes out of it."""

import msgspec

from mailrace.queue.states import FINAL, JobState, Step


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to enqueue.

    Attributes:
        key: What makes it unique in its batch; a second job with the same key is not added.
        payload: One JSON value, as encoded bytes.
    """

    key: str
    payload: msgspec.Raw


class ClaimedJob(msgspec.Struct, frozen=True, gc=False):
    """A job in a worker's hands.

    Attributes:
        lease: The number of this claim; no other claim of any job ever has the same.
        attempt: 1 for the first.
        payload: The JSON value that was enqueued, not decoded.
    """

    id: int
    lease: int
    attempt: int
    payload: msgspec.Raw


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a claim ended: what is written to the journal first and to the store then.

    The order of the fields is the format of the journal and of what the store's SQL reads.

    Attributes:
        id: The job.
        lease: The claim that ended; the store refuses the record if the job is under another.
        step: One of complete, retry, fail, lose, and release for a job that was not begun.
        state: The state that the step leads to from running.
        run_at_ms: For `retry`: not before this Unix time in milliseconds.
        reason: A short text to group by, for example `550 5.1.1`.
        detail: The whole answer.
        at_ms: When it ended, Unix time in milliseconds.
    """

    id: int
    lease: int
    step: Step
    state: JobState
    run_at_ms: int | None = None
    reason: str = ""
    detail: str = ""
    at_ms: int = 0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A counted set of jobs.

    Attributes:
        kind: Which handler its jobs are for.
        spec: What its jobs share, one JSON value.
        created: Whether the call that returned it made it.
    """

    id: int
    name: str
    kind: str
    spec: msgspec.Raw
    created: bool


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stands.

    Attributes:
        counts: Jobs by state; every state is there, and the sum is all jobs ever accepted.
        next_due_ms: When the first waiting retry is due, Unix milliseconds.
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


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds leases.

    Attributes:
        journal: The name of its journal.
        expires_ms: When its leases end unless it renews them, Unix milliseconds.
    """

    id: int
    journal: str
    expires_ms: int
