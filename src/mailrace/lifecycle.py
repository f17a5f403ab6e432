"""The one lifecycle of what runs for long: named tasks, watched, drained, then cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """Tasks that belong together.

    Args:
        on_fault: Called when one ends with an exception, so that the others are not left waiting
            for something that will never come.
    """

    def __init__(self, on_fault: Callable[[], None]) -> None:
        self._on_fault = on_fault
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._look)
        self._tasks.append(task)

    async def drain(self) -> None:
        """Waits until all have ended.

        Raises:
            Exception: What the first of them ended with; a cancelled one has ended well.
        """
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.check()

    def check(self) -> None:
        """Raises what the first task that failed ended with, if one did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def cancel(self) -> None:
        """Cancels all and waits until they are gone; what they raise is for `check`. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _look(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._on_fault()
