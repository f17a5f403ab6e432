"""The end of a pool: what runs is finished, what is left is handed back, everything is told."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from mailrace.errors import MisuseError
from mailrace.pool.job import Job
from mailrace.pool.ledger import Ledger
from mailrace.pool.options import Duration, JobOptions, seconds
from mailrace.pool.outcome import Reason
from mailrace.pool.states import JobState

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer

AnyJob = Job[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A job that was handed back, with everything that is needed to submit it elsewhere.

    Attributes:
        state: Where it stood: `available`, `retryable` or `running`. What was running may have
            done its work, or part of it.
        attempts: How often it was begun.
        due_in_s: Seconds after which its next attempt would have begun, if it waited for that.
    """

    id: int
    name: str
    state: JobState
    attempts: int
    due_in_s: float | None
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: JobOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseReport:
    """What there was when the pool had closed.

    Attributes:
        unfinished: The jobs that were handed back.
        abandoned: Names of jobs whose function still ran then: threads that could not be stopped.
        ledger: Every job, counted once.
    """

    unfinished: tuple[Unfinished, ...]
    abandoned: tuple[str, ...]
    ledger: Ledger

    @property
    def clean(self) -> bool:
        """Whether everything was done."""
        return not self.unfinished and not self.abandoned


class Closing:
    """Closes one pool, once; whoever asks again waits for the same end, or hurries it.

    Args:
        finish_queue: Work off what waits, up to the deadline; otherwise hand it back at once.
    """

    def __init__(self, engine: "Engine", *, finish_queue: bool) -> None:
        self._engine = engine
        self._finish_queue = finish_queue
        self._unfinished: list[Unfinished] = []
        self._deadline: Timer | None = None
        self._over = asyncio.Event()
        self._report: asyncio.Task[CloseReport] | None = None
        self._until_s: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the pool has closed."""
        return self._report is not None and self._report.done()

    def begin(self, timeout_s: float | None) -> None:
        """Takes no more jobs from here on."""
        engine = self._engine
        engine.intake.close()
        engine.hand_back = self._hand_back
        if engine.paused or not self._finish_queue:
            engine.retries_until_s = float("-inf")
        # A reader that is slow, or not there any more, gets all in the end: it is not waited for.
        engine.books.streams.stop_waiting()
        self.hurry(timeout_s)
        # In no job's name, even where one has asked for it.
        self._report = engine.loop.create_task(self._close(), name="close pool", context=Context())

    def hurry(self, timeout_s: float | None) -> None:
        """Sets a deadline, if it is earlier than the one there is."""
        if timeout_s is None or self.is_over:
            return
        until_s = self._engine.now() + timeout_s
        if self._until_s is not None and until_s >= self._until_s:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._until_s = until_s
        self._engine.retries_until_s = min(until_s, self._engine.retries_until_s)
        if timeout_s <= 0:
            self._over.set()
        else:
            self._deadline = self._engine.timers.at(until_s, self._over.set)
            self._hand_back_late_retries()

    async def report(self) -> CloseReport:
        """Waits for the end. A job of the pool itself may ask: it is not waited for."""
        assert self._report is not None
        self._engine.quiet.excuse()
        # Whoever stops waiting does not stop the closing.
        await self._engine.blocked(asyncio.shield(self._report))
        return self._report.result()

    async def _close(self) -> CloseReport:
        engine = self._engine
        if engine.retries_until_s == float("-inf"):
            self._hand_back_waiting()
        await self._until_quiet_or_over()
        self._hand_back_waiting()
        await self._end_running()
        return await self._wind_up()

    async def _until_quiet_or_over(self) -> None:
        quiet = self._engine.loop.create_task(self._engine.quiet.come())
        over = self._engine.loop.create_task(self._over.wait())
        try:
            await asyncio.wait((quiet, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            quiet.cancel()
            over.cancel()

    def _hand_back_waiting(self) -> None:
        engine = self._engine
        waiting = [
            *engine.backlog.jobs(),
            *engine.settlement.delayed.values(),
            *engine.intake.spilled.values(),
        ]
        for job in waiting:
            self._hand_back(job)

    def _hand_back_late_retries(self) -> None:
        """Nobody waits for an attempt that would only begin after the deadline."""
        engine = self._engine
        for job in tuple(engine.settlement.delayed.values()):
            if job.timer is not None and job.timer.at_s > engine.retries_until_s:
                self._hand_back(job)

    def _hand_back(self, job: AnyJob) -> None:
        if job.done():  # the end of another one was the end of this one too
            return
        self._note(job)
        self._engine.settlement.withdraw(job)
        self._engine.settlement.hand_back(job)

    async def _end_running(self) -> None:
        """Ends what still runs; a coroutine has its grace, a thread runs on without its job."""
        engine = self._engine
        engine.closed = True
        engine.look()
        for worker in tuple(engine.crew):
            job = worker.job
            if job is None or job in engine.quiet.excused:
                continue
            note = self._noted(job)
            job.add_done_callback(partial(self._note_if_handed_back, note))
            worker.end(Reason.CLOSED)
        await engine.quiet.come()

    async def _wind_up(self) -> CloseReport:
        """Lets the workers go, and everything that they held."""
        engine = self._engine
        engine.crew.close()
        # One that is stuck in a thread never comes; one that asked for this comes later.
        leaving = [worker.ended for worker in engine.crew if not worker.is_busy]
        if leaving:
            await asyncio.wait(leaving)
        abandoned = tuple(worker.abandoned.name for worker in engine.crew if worker.abandoned)
        engine.watch.stop()
        engine.timers.clear()
        engine.books.streams.close()
        if self._deadline is not None:
            self._deadline.cancel()
        return CloseReport(
            unfinished=tuple(sorted(self._unfinished, key=lambda job: job.id)),
            abandoned=abandoned,
            ledger=engine.ledger(),
        )

    def _note(self, job: AnyJob) -> None:
        self._unfinished.append(self._noted(job))

    def _note_if_handed_back(self, note: Unfinished, job: AnyJob) -> None:
        if job.state is JobState.HANDED_BACK:
            self._unfinished.append(note)

    def _noted(self, job: AnyJob) -> Unfinished:
        due_in_s = None
        if job.state is JobState.RETRYABLE and job.timer is not None:
            due_in_s = max(0.0, job.timer.at_s - self._engine.now())
        return Unfinished(
            id=job.id,
            name=job.name,
            state=job.state,
            attempts=job.attempts,
            due_in_s=due_in_s,
            function=job.function,
            args=job.args,
            kwargs=job.kwargs or {},
            options=job.terms.options,
        )


def closing_s(timeout: Duration | None) -> float | None:
    """How long a close may take, in seconds.

    Raises:
        MisuseError: It is no time span, nor 0 or `None`.
    """
    if timeout is None:
        return None
    if timeout in (0, timedelta()):
        return 0.0
    try:
        return seconds(timeout, "timeout")
    except MisuseError as error:
        raise MisuseError(
            error.problem, hint="give seconds or a timedelta, 0 for now, None for no limit"
        ) from None
