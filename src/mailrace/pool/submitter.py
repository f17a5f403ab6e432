"""Ways to hand jobs to a pool, all with the same options."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from mailrace.errors import MisuseError
from mailrace.pool.bulk import in_order, in_turn, submitted
from mailrace.pool.crossing import JobFuture, submit_across
from mailrace.pool.errors import PoolFullError
from mailrace.pool.job import Job
from mailrace.pool.options import Kind, Terms, check_function, kind_of

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

_LOOP: Final = Kind.LOOP
_IS_COROUTINE: Final = 0x80  # inspect.CO_COROUTINE
# asyncio.get_running_loop without the error where there is none: half the price.
_running_loop = asyncio._get_running_loop  # noqa: SLF001 - documented for event loops


class Submitter(ABC):
    """Hands functions and their arguments to a pool, all with the same options.

    What is asked for wrongly is refused at once: a coroutine object in place of a function, a
    pool that is not open, or one of another event loop.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._engine: Engine | None = None

    @overload
    async def submit(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...

    @overload
    async def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...

    async def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueues a call of the function; waits for room if the pool's overflow policy says so.

        A submit that is cancelled has enqueued nothing.

        Returns:
            The job. Await it for the result.

        Raises:
            PoolFullError: There is no room, and the policy is not to wait, or not for so long.
            PoolClosedError: The pool takes no jobs any more.
            MisuseError: The call is wrong.
        """
        engine = self._engine
        if engine is None or _running_loop() is not engine.loop:
            engine = self._here()
        terms = self._terms
        code = getattr(function, "__code__", None)
        if engine.picky or terms.kind or code is None or not code.co_flags & _IS_COROUTINE:
            job = self._new_job(engine, function, args, kwargs)
        else:  # the same without its frame, for nearly all (benchmarks/bench_pool.py)
            job = Job(engine, terms, _LOOP, function, args, kwargs or None, copy_context(), True)  # noqa: FBT003
        intake = engine.intake
        if intake.room > 0 and not intake.pressed:  # `let_in_at_once` without its frame
            intake.room -= 1
            engine.accept(job)
        else:
            await intake.submit(job)
        return job

    @overload
    def submit_nowait(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...

    @overload
    def submit_nowait(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...

    def submit_nowait(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """The same without waiting: where the policy is to wait, a full queue refuses.

        Raises:
            PoolFullError: There is no room.
            PoolClosedError: The pool takes no jobs any more.
            MisuseError: The call is wrong.
        """
        job = self._job(function, args, kwargs)
        intake = job.engine.intake
        if not intake.let_in_at_once(job):
            intake.submit_nowait(job)
        return job

    @overload
    def submit_threadsafe(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobFuture[T]: ...

    @overload
    def submit_threadsafe(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobFuture[T]: ...

    def submit_threadsafe(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> JobFuture[Any]:
        """`submit` for other threads: blocks until the job is accepted.

        Returns:
            A `concurrent.futures.Future`. Cancelling it asks the job to end.

        Raises:
            PoolFullError: There is no room, and the policy is not to wait, or not for so long.
            PoolClosedError: The pool takes no jobs any more.
            MisuseError: The call is wrong, or made in the event loop's own thread.
        """
        if _running_loop() is not None:
            raise MisuseError(
                "submit_threadsafe would block the event loop", hint="use await pool.submit(...)"
            )
        return submit_across(self._new_job(self._started(), function, args, kwargs))

    def submit_many(
        self, function: Callable[[Item], object], items: Iterable[Item] | AsyncIterable[Item]
    ) -> AsyncGenerator[Job[Any] | PoolFullError, None]:
        """Submits a call for each item, pulling items as there is room for them.

        Yields:
            For each item, in order, its job, or the error with which it was refused.
        """
        return submitted(self, self._here(), function, items)

    @overload
    def map(
        self,
        function: Callable[[Item], Awaitable[T]],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self,
        function: Callable[[Item], T],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
    ) -> AsyncGenerator[T, None]: ...

    def map(
        self,
        function: Callable[[Item], Any],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
    ) -> AsyncGenerator[Any, None]:
        """Calls the function for each item, and yields the results.

        No more items are under way than the queue and the workers hold, and there is waited for
        room whatever the overflow policy. Leaving the loop early cancels what is left.

        Args:
            ordered: In the order of the items; otherwise as they come.

        Raises:
            Exception: What the function raised, where its result would have been.
        """
        results = in_order if ordered else in_turn
        return results(self, self._here(), function, items)

    async def enqueue(
        self, function: Callable[..., Any], args: tuple[Any, ...], *, wait: bool
    ) -> Job[Any]:
        """`submit` with arguments in one piece; waits for room whatever the policy, if asked to."""
        job = self._job(function, args, {})
        intake = job.engine.intake
        if not intake.let_in_at_once(job):
            await intake.submit(job, wait=wait)
        return job

    def _job(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Job[Any]:
        engine = self._engine
        if engine is None or _running_loop() is not engine.loop:
            engine = self._here()
        return self._new_job(engine, function, args, kwargs)

    def _new_job(
        self,
        engine: "Engine",
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Job[Any]:
        terms = self._terms
        code = getattr(function, "__code__", None)
        direct = code is not None and code.co_flags & _IS_COROUTINE > 0
        if direct and terms.kind is None:
            kind = _LOOP
        else:
            check_function(function)
            kind = kind_of(function, terms)
        job: Job[Any] = Job(
            engine, terms, kind, function, args, kwargs or None, copy_context(), direct
        )
        if engine.picky:
            engine.check(job)
        return job

    def _here(self) -> "Engine":
        """The engine, for a call on its own event loop."""
        engine = self._started()
        if _running_loop() is not engine.loop:
            raise MisuseError(
                "the pool belongs to another event loop or thread",
                hint="use it where it was started, or submit_threadsafe from a thread",
            )
        return engine

    @abstractmethod
    def _started(self) -> "Engine":
        """The engine.

        Raises:
            MisuseError: The pool was not started.
        """
