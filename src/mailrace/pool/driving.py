"""Runs a coroutine inside a worker's task, yet in a context of its own.

A task a job would do the same and cost three times as much as everything else that a pool does
for a job (benchmarks/bench_pool.py).
"""

import asyncio
import inspect
from collections.abc import Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any

Work = Coroutine[Any, Any, Any]


async def settled(value: object) -> object:
    """The value, or what it brings if it has to be awaited."""
    return await value if inspect.isawaitable(value) else value


@coroutine
def rest(context: Context, work: Work, waited: Any) -> Generator[Any, None, Any]:
    """The steps of a coroutine from the second one on; each in the coroutine's context.

    Where it is cancelled in the very turn of the loop in which what it waits for has come, the
    result wins: the coroutine goes on, and is cancelled if it has to wait once more.

    Args:
        waited: What its first step waits for.
    """
    run, send = context.run, work.send
    owed: BaseException | None = None
    while True:
        error, owed = owed, None
        try:
            yield waited
        except GeneratorExit:
            run(work.close)
            raise
        except BaseException as thrown:  # noqa: BLE001 - it is the coroutine's
            error = thrown
        try:
            if error is None:
                waited = run(send, None)
            elif isinstance(error, asyncio.CancelledError) and _has_come(waited):
                waited = run(send, None)
                owed = _cancel_again(waited, error)
            else:
                waited = run(work.throw, error)
        except StopIteration as stop:
            return stop.value


def _cancel_again(waited: object, error: BaseException) -> BaseException | None:
    """Cancels what a coroutine waits for now; returns what is to be thrown if that cannot be."""
    if not is_cancelled():
        return None  # it was a time limit inside the job, which is over
    if isinstance(waited, asyncio.Future) and waited.cancel():
        return None
    return error


def is_cancelled() -> bool:
    """Whether somebody has asked the current task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _has_come(waited: object) -> bool:
    return isinstance(waited, asyncio.Future) and waited.done() and not waited.cancelled()
