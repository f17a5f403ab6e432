"""Many jobs from an iterable, pulled no faster than the pool takes them."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from mailrace.errors import MisuseError
from mailrace.pool.errors import PoolFullError
from mailrace.pool.job import Job

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine
    from mailrace.pool.submitter import Submitter

AnyJob = Job[Any]
Items = Iterable[Any] | AsyncIterable[Any]

# Without waiting for anything a feeder would keep the loop from the workers: it steps aside after
# so many items.
_TURN = 100


_NOTHING: Final = object()
"""No item yet: there may be results."""


class Bell:
    """Wakes whoever waits for one of several things."""

    __slots__ = ("_engine", "_waiting")

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._waiting: asyncio.Future[None] | None = None

    def ring(self, _: object = None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def rung(self) -> None:
        """Waits for the next ring; the caller has seen that there is nothing yet."""
        self._waiting = self._engine.loop.create_future()
        await self._engine.blocked(self._waiting)


async def submitted(
    submitter: "Submitter", engine: "Engine", function: Callable[..., Any], items: Items
) -> AsyncGenerator[AnyJob | PoolFullError, None]:
    """Submits a call for each item; yields its job, or the error with which it was refused."""
    async for item in _pulled(engine, items):
        try:
            answer: AnyJob | PoolFullError = await submitter.enqueue(function, (item,), wait=False)
        except PoolFullError as error:
            answer = error
            await asyncio.sleep(0)  # whoever refuses needs a turn to get rid of something
        yield answer


async def in_order(
    submitter: "Submitter", engine: "Engine", function: Callable[..., Any], items: Items
) -> AsyncGenerator[Any, None]:
    """The results in the order of the items."""
    jobs: deque[AnyJob] = deque()
    bell = Bell(engine) if isinstance(items, AsyncIterable) else None
    most = _ahead(engine)
    try:
        async for item in _pulled(engine, items, bell):
            if item is not _NOTHING:
                job = await submitter.enqueue(function, (item,), wait=True)
                jobs.append(job)
                if bell is not None:
                    job.add_done_callback(bell.ring)
            while jobs and (len(jobs) >= most or jobs[0].done()):
                yield await _first(jobs)
        while jobs:
            yield await _first(jobs)
    finally:
        for job in jobs:
            job.cancel()


async def _first(jobs: deque[AnyJob]) -> Any:
    """The result of the first one, which stays among those that are left until it has one."""
    result = await jobs[0]
    jobs.popleft()
    return result


async def in_turn(
    submitter: "Submitter", engine: "Engine", function: Callable[..., Any], items: Items
) -> AsyncGenerator[Any, None]:
    """The results as they come."""
    done: deque[AnyJob] = deque()
    left: dict[int, AnyJob] = {}
    bell = Bell(engine)
    most = _ahead(engine)

    def ended(job: AnyJob) -> None:
        del left[job.id]
        done.append(job)
        bell.ring()

    try:
        async for item in _pulled(engine, items, bell):
            if item is not _NOTHING:
                job = await submitter.enqueue(function, (item,), wait=True)
                left[job.id] = job
                job.add_done_callback(ended)
            while done or len(left) >= most:
                while not done:
                    await bell.rung()
                yield await done.popleft()
        while done or left:
            while not done:
                await bell.rung()
            yield await done.popleft()
    finally:
        for job in tuple(left.values()):
            job.cancel()


async def _pulled(
    engine: "Engine", items: Items, bell: Bell | None = None
) -> AsyncGenerator[Any, None]:
    """The items, one when it is asked for; none while memory runs short.

    Args:
        bell: Where the items are awaited, `_NOTHING` comes between them when it rings.
    """
    if isinstance(items, AsyncIterable):
        async for item in _awaited(engine, items, bell or Bell(engine)):
            if item is not _NOTHING:
                await engine.watch.until_sources_may_run()
            yield item
        return
    if not isinstance(items, Iterable):
        raise MisuseError(f"items is {items!r}", hint="give an iterable or an async iterable")
    for pulled, item in enumerate(items, 1):
        if pulled % _TURN == 0:
            await asyncio.sleep(0)
        await engine.watch.until_sources_may_run()
        yield item


async def _awaited(
    engine: "Engine", items: AsyncIterable[Any], bell: Bell
) -> AsyncGenerator[Any, None]:
    """The items of a source that may take its time: results must not have to wait for it."""
    asked = asyncio.Event()
    got: deque[Any] = deque()

    async def pull() -> None:
        await asked.wait()
        async for item in items:
            asked.clear()
            got.append(item)
            bell.ring()
            await asked.wait()

    # One task from the first item to the last: what a source opens it closes in the same one.
    pulling = engine.loop.create_task(pull())
    pulling.add_done_callback(bell.ring)
    try:
        while True:
            asked.set()
            while not got and not pulling.done():
                await bell.rung()
                if not got and not pulling.done():
                    yield _NOTHING
            if not got:
                await pulling
                return
            yield got.popleft()
    finally:
        pulling.cancel()
        await asyncio.wait((pulling,))


def _ahead(engine: "Engine") -> int:
    return engine.settings.queue_size + engine.settings.workers_max
