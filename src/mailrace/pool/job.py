"""A job of a pool: what the program that submitted it holds in its hand."""

import asyncio
from collections.abc import Callable, Generator, Hashable, Mapping
from contextvars import Context, ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from mailrace.errors import MisuseError
from mailrace.pool.errors import JobCancelledError
from mailrace.pool.options import Duration, Kind, Terms, name_of, seconds
from mailrace.pool.outcome import Attempt, Outcome, Reason
from mailrace.pool.states import FINAL, JobState

if TYPE_CHECKING:
    from types import TracebackType

    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer
    from mailrace.pool.worker import Worker

T = TypeVar("T")

CURRENT: ContextVar["Job[Any] | None"] = ContextVar("mailrace_job", default=None)

_NO_ARGS: Final[tuple[Any, ...]] = ()
_NO_CONTEXT: Final = Context()

_COMPLETED = JobState.COMPLETED
_AVAILABLE = JobState.AVAILABLE


class Trouble:
    """What came in between a job and its result, as far as that was not its first attempt.

    Attributes:
        attempts: Those that failed.
        reason: Why the last one did, or why the job ended without a result.
        error: What it raised, or what is raised for it.
        traceback: The error's own, without those who awaited the job.
    """

    __slots__ = ("attempts", "error", "reason", "traceback")

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.reason = Reason.ERROR
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None

    def throw(self) -> None:
        """Raises the error, if there is one, as if for the first time.

        One object is raised for everybody: without that each would add its frames for the next,
        and keep its variables alive with them.
        """
        if self.error is not None:
            try:
                raise self.error.with_traceback(self.traceback)
            finally:
                del self  # the traceback has this frame, and the trouble has the traceback


class Job(Generic[T]):
    """A function and its arguments on their way through a pool. Await it for the result.

    Await it as often and from as many tasks as you like; cancelling one that awaits cancels
    neither the job nor the others. A job that nobody awaits leaks nothing and warns of nothing.

    Attributes:
        id: Its number within the pool, from 1 in the order of acceptance; 0 if it was refused.
        state: Where it stands.
        attempts: How often it was begun.
        direct: Its function is a coroutine function and can be called as it is.
        trouble: What came in between it and its result; `None` for most.
    """

    # What a job that waits costs is counted in bytes (benchmarks/bench_pool_memory.py): no
    # dictionary, and nothing that only some jobs need.
    __slots__ = (
        "_value",
        "_waiters",
        "args",
        "attempts",
        "context",
        "direct",
        "ended_s",
        "engine",
        "function",
        "id",
        "kind",
        "kwargs",
        "queued_s",
        "started_s",
        "state",
        "submitted_s",
        "terms",
        "timer",
        "trouble",
        "worker",
    )

    # Set on the way, in this order; nothing reads them earlier.
    submitted_s: float
    queued_s: float
    started_s: float
    ended_s: float
    _value: T

    def __init__(  # noqa: PLR0917 - names would cost a third more, for every job
        self,
        engine: "Engine",
        terms: Terms,
        kind: Kind,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context,
        direct: bool,  # noqa: FBT001
    ) -> None:
        self.engine = engine
        self.terms = terms
        self.kind = kind
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.direct = direct
        self.state = _AVAILABLE
        self.id = 0
        self.attempts = 0
        self._waiters: list[Callable[[Job[T]], object]] | None = None
        self.timer: Timer | None = None
        self.worker: Worker | None = None
        self.trouble: Trouble | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name}: {self.state}>"

    @property
    def name(self) -> str:
        return self.terms.options.name or name_of(self.function)

    @property
    def key(self) -> Hashable:
        return self.terms.key

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.terms.options.metadata

    def belongs_to(self, engine: "Engine") -> bool:
        return self.engine is engine

    @property
    def reason(self) -> Reason:
        """Why it stands where it stands."""
        if self.state is _COMPLETED or self.trouble is None:
            return Reason.RESULT
        return self.trouble.reason

    @property
    def error(self) -> BaseException | None:
        """What its last attempt raised, or what `await` raises instead of a result."""
        if self.state is _COMPLETED or self.trouble is None:
            return None
        return self.trouble.error

    @property
    def failed_attempts(self) -> tuple[Attempt, ...]:
        """Those that did not bring the result."""
        return () if self.trouble is None else tuple(self.trouble.attempts)

    def done(self) -> bool:
        """Whether it has its final outcome."""
        return self.state in FINAL

    def __await__(self) -> Generator[Any, Any, T]:
        if self.state is not _COMPLETED:
            if self.state not in FINAL:
                yield from self._wait().__await__()
            if self.state is not _COMPLETED and self.trouble is not None:
                self.trouble.throw()
        return self._value

    async def result(self, timeout: Duration | None = None) -> T:
        """The result, like `await job`, but within a time.

        Raises:
            TimeoutError: It is not there yet. The job goes on.
            JobError: It ended without one: cancelled, expired, dropped, timed out.
            PoolClosedError: The pool closed first and handed it back.
            Exception: What its function raised in the last attempt.
        """
        if timeout is not None and not self.done():
            async with asyncio.timeout(seconds(timeout, "timeout")):
                await self._wait()
        return await self

    async def outcome(self, timeout: Duration | None = None) -> Outcome:
        """How it ended, whatever that is.

        Raises:
            TimeoutError: It has not ended yet. The job goes on.
        """
        if not self.done():
            limit_s = None if timeout is None else seconds(timeout, "timeout")
            async with asyncio.timeout(limit_s):
                await self._wait()
        return self.summary()

    def add_done_callback(self, callback: Callable[["Job[T]"], object]) -> None:
        """Calls back in the loop when the job has ended; at once if it has."""
        if self.done():
            callback(self)
        elif self._waiters is None:
            self._waiters = [callback]
        else:
            self._waiters.append(callback)

    def cancel(self) -> bool:
        """Withdraws it if it waits, and asks it to end if it runs.

        A coroutine is cancelled and may refuse; a thread cannot be stopped: its caller is freed,
        and the function may look at `check_cancelled`; a process is killed.

        Returns:
            False if it had ended before.
        """
        self._here()
        return self.engine.settlement.cancel(self)

    def check_cancelled(self) -> None:
        """For a function in a thread that takes long: raises if nobody waits for it any more.

        Raises:
            JobCancelledError: The job was cancelled or has timed out.
        """
        if self.done():
            raise JobCancelledError(f"job {self.id} has ended", hint="stop what it is doing")

    def slow_down(self) -> None:
        """For the function: the far side asked for less. Lowers the rate by the pool's pace."""
        self.engine.from_anywhere(self.engine.slowed)

    def refund(self) -> None:
        """For the function: what it took from the rate limits was not used."""
        self.engine.from_anywhere(lambda: self.engine.refund(self))

    @property
    def perishes_s(self) -> float | None:
        """When it is too late for it to start."""
        deadline_s = self.terms.deadline_s
        expires_s = None if self.attempts else self.terms.expires_s
        if deadline_s is None:
            return None if expires_s is None else self.submitted_s + expires_s
        if expires_s is None:
            return self.submitted_s + deadline_s
        return self.submitted_s + min(deadline_s, expires_s)

    @property
    def deadline_s(self) -> float | None:
        """When all its attempts have to be over."""
        span_s = self.terms.deadline_s
        return None if span_s is None else self.submitted_s + span_s

    def due_s(self, now_s: float) -> float:
        """When the attempt that begins now has to be over."""
        timeout_s, deadline_s = self.terms.timeout_s, self.deadline_s
        if deadline_s is None:
            assert timeout_s is not None
            return now_s + timeout_s
        return deadline_s if timeout_s is None else min(deadline_s, now_s + timeout_s)

    def is_past(self, now_s: float) -> bool:
        """Whether its deadline is over."""
        return self.deadline_s is not None and now_s >= self.deadline_s

    def summary(self) -> Outcome:
        """How it stands after its last attempt."""
        started = self.attempts > 0
        until_s = self.started_s if started else self.ended_s
        terms = self.terms
        options = terms.options
        return Outcome(
            job_id=self.id,
            name=options.name or name_of(self.function),
            state=self.state,
            reason=self.reason,
            value=self._value if self.state is _COMPLETED else None,
            error=self.error,
            attempts=self.attempts,
            waited_s=max(0.0, until_s - self.submitted_s),
            ran_s=self.ended_s - self.started_s if started else 0.0,
            worker=None if self.worker is None else self.worker.number,
            key=terms.key,
            metadata=options.metadata,
        )

    def has_trouble(self, reason: Reason, error: BaseException) -> Trouble:
        """Notes what came in between."""
        if self.trouble is None:
            self.trouble = Trouble()
        self.trouble.reason = reason
        self.trouble.error = error
        self.trouble.traceback = error.__traceback__
        return self.trouble

    def complete(self, value: T) -> None:
        """Ends it with its result, and lets go of what it was called with."""
        self.state = _COMPLETED
        self._value = value
        self.args = _NO_ARGS
        self.kwargs = None
        self.context = _NO_CONTEXT
        if self._waiters is not None:
            self._tell()

    def end(self, state: JobState, reason: Reason, error: BaseException) -> None:
        """Ends it without one."""
        self.state = state
        self.has_trouble(reason, error)
        self.args = _NO_ARGS
        self.kwargs = None
        self.context = _NO_CONTEXT
        if self._waiters is not None:
            self._tell()

    def _here(self) -> None:
        if asyncio._get_running_loop() is not self.engine.loop:  # noqa: SLF001 - cheap, and public
            raise MisuseError(
                f"job {self.id} belongs to another event loop or thread",
                hint="use what submit_threadsafe returns there",
            )

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            try:
                waiter(self)
            except BaseException as error:  # noqa: BLE001 - not the worker's fault, nor the others'
                self.engine.callback_failed(self, error)

    async def _wait(self) -> None:
        """Until it has ended; a job of the same pool lends its worker's place meanwhile."""
        self._here()
        ended = self.engine.loop.create_future()

        def tell(_: object) -> None:
            if not ended.done():
                ended.set_result(None)

        self.add_done_callback(tell)
        try:
            await self.engine.blocked(ended)
        finally:
            if self._waiters is not None:  # it has not ended; `ended` may have been cancelled
                self._waiters.remove(tell)


def current_job() -> Job[Any]:
    """The job that the calling function is run for: its attempt, metadata and key.

    Raises:
        MisuseError: It is not run by a pool.
    """
    job = CURRENT.get()
    if job is None:
        raise MisuseError("there is no current job", hint="call it in a function that a pool runs")
    return job
