"""Looks at what belongs to an event loop, from whatever thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def ask(loop: asyncio.AbstractEventLoop, look: Callable[[], T]) -> Future[T] | None:
    """Has somebody look on the loop, where nothing changes under the reader.

    Returns:
        What will hold the answer; in the loop's own thread it does already, and a loop that hangs
        leaves it undone. `None` if the loop runs no more.
    """
    answer: Future[T] = Future()
    if loop is _running_loop():
        _look(answer, look)
        return answer
    if not loop.is_running():
        return None
    try:
        loop.call_soon_threadsafe(_look, answer, look)
    except RuntimeError:  # it was closed this moment
        return None
    return answer


def _look(answer: Future[T], look: Callable[[], T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(look())
    except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
        answer.set_exception(error)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
