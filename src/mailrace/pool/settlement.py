"""What follows from how an attempt ended: the outcome, or another attempt."""

import asyncio
import gc
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mailrace.pool.errors import (
    JobCancelledError,
    JobDroppedError,
    JobExpiredError,
    JobTimeoutError,
    PoolClosedError,
)
from mailrace.pool.job import Job
from mailrace.pool.options import Kind, OptionChanges
from mailrace.pool.outcome import Reason
from mailrace.pool.retry import GiveUp
from mailrace.pool.states import JobState

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine

AnyJob = Job[Any]

_AVAILABLE: Final = JobState.AVAILABLE
_RETRYABLE: Final = JobState.RETRYABLE
_THREAD: Final = Kind.THREAD


_STOP_HINTS: Final = {
    Kind.LOOP: "let CancelledError through, or raise cancel_grace",
    Kind.THREAD: "have it look at current_job().check_cancelled()",
    Kind.PROCESS: "its process could not be killed yet",
}


class Settlement:
    """Gives every job its one final outcome.

    Attributes:
        delayed: Jobs that wait for their next attempt, by id.
    """

    def __init__(self, engine: "Engine", chance: Callable[[], float]) -> None:
        self._engine = engine
        self._chance = chance
        self.delayed: dict[int, AnyJob] = {}

    def completed(self, job: AnyJob, value: object) -> float:
        """An attempt brought the result. Returns the time, which the worker needs next."""
        engine = self._engine
        books, now_s = engine.books, engine.now()
        books.completed += 1
        if books.runs is not None:
            if now_s >= books.turn_s or not books.left:
                books.turn(now_s)
            books.left -= 1
            books.append_run(now_s - job.started_s)
            books.append_wait(job.started_s - job.submitted_s)
        if engine.accountable:
            self._account(job, None, now_s)
        job.ended_s = now_s
        job.complete(value)
        if engine.observed:
            engine.observe(job)
        return now_s

    def failed(self, job: AnyJob, error: BaseException, reason: Reason = Reason.ERROR) -> float:
        """The function raised."""
        if job.kwargs is not None and isinstance(error, TypeError):
            _note_options(job.kwargs, error)
        now_s = self._attempt_failed(job, error)
        policy = job.terms.retry
        if policy is None or self._engine.closed:
            self._fail(job, reason, error)
            return now_s
        verdict = policy.decide(
            job.attempts,
            error,
            now_s=now_s,
            deadline_s=job.deadline_s,
            chance=self._chance(),
            budget=self._engine.budget,
        )
        if isinstance(verdict, GiveUp):
            self._fail(job, Reason(verdict.reason.value), error)
        else:
            self._retry(job, verdict.at_s)
        return now_s

    def worker_died(self, job: AnyJob, error: BaseException) -> float:
        """What ran the attempt ended under it."""
        if job.kind is _THREAD:  # the function may run on: no other attempt may begin now
            now_s = self._attempt_failed(job, error)
            self._fail(job, Reason.WORKER_DIED, error)
            return now_s
        return self.failed(job, error, Reason.WORKER_DIED)

    def ended(self, job: AnyJob, reason: Reason, error: BaseException) -> float:
        """The attempt was made to end: by the pool, by somebody's request, or by its own cancel.

        Args:
            reason: Which of these.
            error: What came out of the function.
        """
        if reason is Reason.TIMEOUT:
            self._engine.books.timeouts += 1
            late = JobTimeoutError(f"job {job.id} ({job.name}) took longer than its timeout")
            late.__cause__ = None if isinstance(error, asyncio.CancelledError) else error
            return self.failed(job, late, Reason.TIMEOUT)
        if reason is Reason.DEADLINE:
            self._engine.books.timeouts += 1
            late = JobTimeoutError(f"job {job.id} ({job.name}) ran into its deadline")
            now_s = self._attempt_failed(job, late)
            self._fail(job, Reason.DEADLINE, late)
            return now_s
        now_s = self._engine.now()
        if self._engine.gates.released(job):
            self._engine.dispatch.release()
        if reason is Reason.CLOSED:
            self.hand_back(job)
        else:
            self.finish(job, JobState.CANCELLED, reason, _cancelled(job, reason))
        return now_s

    def abandoned(self, job: AnyJob, reason: Reason) -> None:
        """The caller is freed although the function runs on: no other attempt may begin now."""
        if reason in (Reason.TIMEOUT, Reason.DEADLINE):
            self._engine.books.timeouts += 1
            error = JobTimeoutError(
                f"job {job.id} ({job.name}) took too long, and its function still runs",
                hint=_STOP_HINTS[job.kind],
            )
            self._attempt_failed(job, error)
            self._fail(job, reason, error)
        else:
            self.ended(job, reason, asyncio.CancelledError())

    def cancel(self, job: AnyJob) -> bool:
        """Withdraws a waiting job, asks a running one to end; false if it had ended."""
        if job.state is JobState.RUNNING:
            return job.worker is not None and job.worker.end(Reason.REQUESTED)
        if not self.withdraw(job):
            return False
        self.finish(job, JobState.CANCELLED, Reason.REQUESTED, _cancelled(job, Reason.REQUESTED))
        return True

    def drop(self, job: AnyJob, reason: Reason) -> None:
        """Gives up a waiting job for the sake of others."""
        self.withdraw(job)
        why = "memory ran short" if reason is Reason.MEMORY else "others needed its place"
        error = JobDroppedError(f"job {job.id} ({job.name}) was dropped: {why}")
        self.finish(job, JobState.DROPPED, reason, error)

    def expire(self, job: AnyJob) -> None:
        """It is too late for a waiting job to start."""
        self.withdraw(job)
        past = job.is_past(self._engine.now())
        error = JobExpiredError(f"job {job.id} ({job.name}) was not started in time")
        self.finish(job, JobState.EXPIRED, Reason.DEADLINE if past else Reason.EXPIRED, error)

    def hand_back(self, job: AnyJob) -> None:
        """The pool closes before the job is done."""
        error = PoolClosedError(
            f"the pool closed before job {job.id} ({job.name}) was done",
            hint="its function and arguments are in the report of close()",
        )
        self.finish(job, JobState.HANDED_BACK, Reason.CLOSED, error)

    def withdraw(self, job: AnyJob) -> bool:
        """Takes a waiting job out of wherever it waits; false if it does not wait.

        The caller gives it its state in the same breath.
        """
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        if job.state is _RETRYABLE:
            del self.delayed[job.id]
            self._engine.intake.started(job)
        elif job.state is _AVAILABLE and job.id:
            self._engine.intake.withdraw(job)
        else:
            return False
        return True

    def finish(self, job: AnyJob, state: JobState, reason: Reason, error: BaseException) -> None:
        """The one way to a final state other than `completed`."""
        engine = self._engine
        was_waiting = job.state is not JobState.RUNNING
        engine.books.ended[state] += 1
        job.ended_s = engine.now()
        job.end(state, reason, error)
        if was_waiting:
            engine.backlog.tidy()
            engine.intake.relieve()
        if engine.observed:
            engine.observe(job)

    def _attempt_failed(self, job: AnyJob, error: BaseException) -> float:
        engine = self._engine
        now_s = engine.now()
        job.ended_s = now_s
        engine.books.attempt_failed(job, error, now_s, engine.clock.unix_s())
        if engine.accountable:
            self._account(job, error, now_s)
        _let_go_of_frames(error)
        return now_s

    def _account(self, job: AnyJob, error: BaseException | None, now_s: float) -> None:
        """Tells limits, breakers and the retry budget how an attempt ended."""
        engine = self._engine
        if engine.gated and engine.gates.ended(job, error, now_s):
            engine.dispatch.release()
        if engine.budget is not None and job.attempts == 1:
            engine.budget.attempted(now_s)

    def _fail(self, job: AnyJob, reason: Reason, error: BaseException) -> None:
        self._engine.books.bury(job, reason, self._engine.clock.unix_s())
        self.finish(job, JobState.FAILED, reason, error)

    def _retry(self, job: AnyJob, at_s: float) -> None:
        """Has it wait for its next attempt; its place in the queue's bound is kept for it."""
        engine = self._engine
        engine.books.retries += 1
        job.state = _RETRYABLE
        self.delayed[job.id] = job
        engine.intake.take_place(job)
        job.timer = engine.timers.at(at_s, partial(self._due, job))
        if engine.observed:
            engine.observe(job)
        if at_s > engine.retries_until_s:
            engine.hand_back(job)

    def _due(self, job: AnyJob) -> None:
        del self.delayed[job.id]
        job.timer = None
        self._engine.requeue(job)


def _cancelled(job: AnyJob, reason: Reason) -> JobCancelledError:
    how = "cancelled itself" if reason is Reason.HANDLER else "was cancelled"
    return JobCancelledError(f"job {job.id} ({job.name}) {how}")


def _note_options(kwargs: dict[str, Any], error: TypeError) -> None:
    """Tells of arguments that a function would not take, and that were meant for the pool."""
    if "keyword argument" not in str(error):
        return
    for name in OptionChanges.__annotations__.keys() & kwargs.keys():
        note = f"{name} is an option: pool.options({name}=...).submit(...)"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _let_go_of_frames(error: BaseException) -> None:
    """Keeps an error's traceback readable, but not the variables of its frames alive.

    An error that is kept, by a job in somebody's list, would otherwise keep everything that the
    function had in its hands.
    """
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            # One error may be raised by many, and clearing the frame of a coroutine that only
            # waits ends that coroutine (before Python 3.13). Such a frame does not own what it
            # refers to, so that the collector does not see its code; a frame that is over does.
            if any(part is frame.f_code for part in gc.get_referents(frame)):
                frame.clear()
        seen = seen.__cause__ or seen.__context__
