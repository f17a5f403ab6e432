"""One attempt at a job: what a handler is given, what it answers, and what follows from that."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.session import Session
from mailrace.queue.states import JobState, Step, after


class Result(msgspec.Struct, frozen=True, gc=False):
    """What came of an attempt, as the handler saw it.

    Attributes:
        step: One of complete, retry, snooze, fail, lose, cancel, expire.
        reason: A short text to group by.
        detail: The whole answer.
        delay_s: When to come back, for `retry` and `snooze`; `None`: as the schedule says.
        category: What kind of error it was: provider, network, data, system; empty for none.
        value: What the handler returned, one JSON value.
    """

    step: Step
    reason: str
    detail: str
    delay_s: float | None = None
    category: str = ""
    value: msgspec.Raw | None = None


class Gate:
    """What an attempt passes on the way out: the limit first, the journal last."""

    __slots__ = (
        "_limiter",
        "_session",
        "begun",
        "cancelled",
        "committed",
        "job",
        "permitted",
        "recalled",
    )

    def __init__(self, job: ClaimedJob, limiter: Limiter, session: Session) -> None:
        self.job = job
        self._limiter = limiter
        self._session = session
        self.permitted = False
        self.begun = False
        self.committed = False
        self.recalled = False
        self.cancelled = False

    async def permit(self) -> None:
        """Waits for the limit."""
        await self._limiter.wait()
        self.permitted = True

    def start(self) -> None:
        """Notes that the job is begun, and commits it where it is done at most once.

        Others may be run again: whoever finds one begun counts the death.

        Raises:
            ConflictError: The lease has run out.
            UnavailableError: The journal cannot be written.
        """
        if self.recalled or self.cancelled:  # its cancel comes with the next wait: too late
            raise asyncio.CancelledError
        once = self.job.once
        self._session.departing(self.job, once=once)
        self.begun, self.committed = True, once

    def commit(self) -> None:
        """Notes that the far side may have the job from now on, whatever job it is.

        Raises:
            ConflictError: The lease has run out.
            UnavailableError: The journal cannot be written.
        """
        self.start()
        self.committed = True

    def retract(self) -> None:
        """Nothing was handed over after all; its note in the journal is still to be undone."""
        self.committed = False


class Handler(Protocol):
    """Does a job once.

    Before it commits it may be cancelled, when the run is to stop. An exception that is not named
    here is a fault: the job is retried, or `uncertain` if it was committed.

    Raises:
        UnavailableError: Nothing was done and nothing can be for now: the job goes back, no
            attempt is counted, and the worker pauses. A job with which that happens three times
            after its permit is taken to be the reason, and retried on its schedule.
        RejectedError: Nothing was done and nothing will be until a person acts: the run ends.
    """

    async def __call__(self, job: ClaimedJob, gate: Gate) -> Result: ...


class Chunks(Protocol):
    """Does jobs of some kinds many at a time.

    Attributes:
        sizes: How many of a kind at most.
    """

    sizes: Mapping[str, int]

    async def together(self, jobs: Sequence[ClaimedJob], gates: Sequence[Gate]) -> list[Result]:
        """One result for each job, in their order; it raises nothing but its own cancellation."""
        ...


def finished(job: ClaimedJob, result: Result, retry: RetrySchedule, now_ms: int) -> Finished:
    """What the ledger is told: a retry becomes a failure when there are no attempts left.

    Raises:
        ConflictError: The result's step is none that an attempt can end with.
    """
    step, delay_s = result.step, result.delay_s
    if step is Step.COMPLETE:  # nearly all of them: no look-ups, no checks of what is not there
        return Finished(
            job.id, job.lease, step, JobState.COMPLETED, None,
            storable(result.reason), storable(result.detail), now_ms, "", result.value,
        )  # fmt: skip
    if step is Step.RETRY and delay_s is None:
        delay_s = retry.delay_s(job.attempt)
        if delay_s is None:
            step = Step.FAIL
    state = after(JobState.RUNNING, step)
    delay_ms = None
    if step is Step.RETRY or step is Step.SNOOZE:
        delay_ms = int((delay_s or 0.0) * 1000)
    reason, detail = storable(result.reason), storable(result.detail)
    return Finished(
        job.id, job.lease, step, state, delay_ms, reason, detail, now_ms, result.category
    )


def released(job: ClaimedJob, now_ms: int) -> Finished:
    """What the ledger is told of a job that was claimed and not begun."""
    return Finished(
        job.id, job.lease, Step.RELEASE, after(JobState.RUNNING, Step.RELEASE), at_ms=now_ms
    )


def storable(text: str) -> str:
    """The text as every store can keep it: no lone surrogates, no NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
