"""From other threads into a pool: submits that block, and futures that a thread can wait for."""

import asyncio
import concurrent.futures
from typing import Any, Generic, TypeVar

from mailrace.errors import MisuseError
from mailrace.pool.job import CURRENT, Job

T = TypeVar("T")

# A loop that is closed never answers: a thread that waits for it looks so often.
_LOOK_S = 1.0


class JobFuture(concurrent.futures.Future[T], Generic[T]):
    """A job as another thread sees it.

    Waiting for it in a job of the same pool lends that job's place, so that it cannot deadlock.
    """

    def __init__(self, job: Job[T]) -> None:
        super().__init__()
        self.job = job

    def cancel(self) -> bool:
        """Asks the job to end; false if it has ended."""
        if self.done():
            return False
        self.job.engine.from_anywhere(self.job.cancel)
        return True

    def result(self, timeout: float | None = None) -> T:
        """The job's result; see `concurrent.futures.Future.result`."""
        self._lend(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the job ended with; see `concurrent.futures.Future.exception`."""
        self._lend(timeout)
        return super().exception(timeout)

    def _lend(self, timeout: float | None) -> None:
        current = CURRENT.get()
        if self.done() or current is None or not current.belongs_to(self.job.engine):
            return
        if timeout is not None and timeout <= 0:
            return
        # The time is kept there, and not here: the place that was lent has to come back.
        until = _until(self.job, timeout)
        asyncio.run_coroutine_threadsafe(until, self.job.engine.loop).result()


def submit_across(job: Job[T]) -> JobFuture[T]:
    """Hands a job over from the thread that calls, and blocks until it is accepted."""
    engine, future = job.engine, JobFuture(job)
    if engine.loop.is_closed():
        raise _loop_closed()
    accepted: concurrent.futures.Future[None] = concurrent.futures.Future()
    inside = CURRENT.get()
    if inside is not None and inside.belongs_to(engine):
        # With the context of the job that submits, whose place is lent if it has to wait.
        accepted = asyncio.run_coroutine_threadsafe(_enter(job, future), engine.loop)
    else:
        engine.from_anywhere(lambda: _arrive(job, future, accepted))
    try:
        _until_done(accepted, engine.loop)
    except concurrent.futures.CancelledError:
        raise _loop_closed() from None
    return future


def _arrive(job: Job[T], future: JobFuture[T], accepted: concurrent.futures.Future[None]) -> None:
    """Lets the job in at once if it can be; otherwise a task waits for room."""
    if job.engine.intake.let_in_at_once(job):
        job.add_done_callback(lambda job: _settle(job, future))
        accepted.set_result(None)
        return
    task = job.engine.loop.create_task(_enter(job, future))

    def answered(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            accepted.cancel()
        elif (error := task.exception()) is not None:
            accepted.set_exception(error)
        else:
            accepted.set_result(None)

    task.add_done_callback(answered)


async def _enter(job: Job[T], future: JobFuture[T]) -> None:
    await job.engine.intake.submit(job)
    job.add_done_callback(lambda job: _settle(job, future))


def _until_done(
    accepted: "concurrent.futures.Future[None]", loop: asyncio.AbstractEventLoop
) -> None:
    while True:
        try:
            return accepted.result(_LOOK_S)
        except TimeoutError:
            if accepted.done():
                return accepted.result()
            if loop.is_closed():
                raise _loop_closed() from None


def _loop_closed() -> MisuseError:
    return MisuseError("the pool's event loop is closed", hint="submit before that")


async def _until(job: Job[Any], timeout_s: float | None) -> None:
    await job.outcome(timeout_s)


def _settle(job: Job[T], future: JobFuture[T]) -> None:
    if job.error is None:
        future.set_result(job.summary().value)
    else:
        future.set_exception(job.error)
