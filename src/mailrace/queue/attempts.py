"""One attempt at a job: what a handler is given, what it answers, and what follows from that."""

import asyncio
from typing import Protocol

import msgspec

from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.session import Session
from mailrace.queue.states import JobState, Step, after


class Result(msgspec.Struct, frozen=True, gc=False):
    """What came of an attempt, as the handler saw it.

    Attributes:
        step: One of complete, retry, fail, lose.
        reason: A short text to group by.
        detail: The whole answer.
    """

    step: Step
    reason: str
    detail: str


class Gate:
    """What an attempt passes on the way out: the limit first, the journal last."""

    __slots__ = ("_job", "_limiter", "_session", "committed", "permitted", "recalled")

    def __init__(self, job: ClaimedJob, limiter: Limiter, session: Session) -> None:
        self._job = job
        self._limiter = limiter
        self._session = session
        self.permitted = False
        self.committed = False
        self.recalled = False

    async def permit(self) -> None:
        """Waits for the limit."""
        await self._limiter.wait()
        self.permitted = True

    def commit(self) -> None:
        """Notes that the far side may have the job from now on.

        Raises:
            ConflictError: The lease has run out.
            UnavailableError: The journal cannot be written.
        """
        if self.recalled:  # its cancel comes with the next wait, and that would be too late
            raise asyncio.CancelledError
        self._session.departing(self._job)
        self.committed = True


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


def finished(job: ClaimedJob, result: Result, retry: RetrySchedule, now_ms: int) -> Finished:
    """What the ledger is told: a retry becomes a failure when there are no attempts left.

    Raises:
        ConflictError: The result's step is none that an attempt can end with.
    """
    step, run_at_ms = result.step, None
    if step is Step.RETRY:
        delay_s = retry.delay_s(job.attempt)
        if delay_s is None:
            step = Step.FAIL
        else:
            run_at_ms = now_ms + int(delay_s * 1000)
    state = after(JobState.RUNNING, step)
    reason, detail = _storable(result.reason), _storable(result.detail)
    return Finished(job.id, job.lease, step, state, run_at_ms, reason, detail, now_ms)


def released(job: ClaimedJob, now_ms: int) -> Finished:
    """What the ledger is told of a job that was claimed and not begun."""
    return Finished(
        job.id, job.lease, Step.RELEASE, after(JobState.RUNNING, Step.RELEASE), at_ms=now_ms
    )


def _storable(text: str) -> str:
    """The text without lone surrogates (file names that are not UTF-8): nothing encodes them."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
