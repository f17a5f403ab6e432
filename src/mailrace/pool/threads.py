"""A thread that runs one function after another, and the way of their results to the loop."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Final

from mailrace.errors import UnavailableError

Done = Callable[[object, BaseException | None], None]
"""Takes what a function returned, or `None` and what it raised."""

_Call = tuple[Callable[..., object], Sequence[Any], Mapping[str, Any], contextvars.Context]


class Returns:
    """Carries what threads have done to the loop, many results with one wake-up.

    Waking the loop is a write to a socket, and the largest part of what a result costs: a thread
    does it only if no wake-up is under way.
    """

    __slots__ = ("_loop", "_returned", "_waking")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._returned: deque[tuple[Done, object, BaseException | None]] = deque()
        self._waking = False

    def post(self, done: Done, value: object, error: BaseException | None) -> None:
        """Has `done(value, error)` called in the loop; from any thread.

        What comes after the loop was closed is dropped: nobody is left who waits for it.
        """
        # First the result, then the look at the flag; the loop does it the other way round. One
        # of the two always sees the other.
        self._returned.append((done, value, error))
        if self._waking:
            return
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed
            self._waking = False
            self._returned.clear()

    def _deliver(self) -> None:
        self._waking = False
        # Only what is here already: threads that are given new work by `done` and are quick could
        # keep the loop in here for good.
        left = len(self._returned)
        try:
            while left:
                left -= 1
                done, value, error = self._returned.popleft()
                done(value, error)
        finally:
            if left:
                self._loop.call_soon(self._deliver)


class WorkerThread:
    """A thread that runs the functions it is handed, one at a time.

    It holds nothing of a call once that is over. Being a daemon it cannot hold up the end of the
    program, even if its function never comes back.

    Attributes:
        busy: Whether it has a call whose result has not been delivered.
    """

    __slots__ = (
        "_calls",
        "_closed",
        "_done",
        "_finish",
        "_returns",
        "_thread",
        "busy",
    )

    def __init__(self, name: str, returns: Returns) -> None:
        """Starts the thread.

        Raises:
            UnavailableError: The machine has no thread to spare.
        """
        self.busy = False
        self._returns = returns
        self._done: Done | None = None
        self._closed = False
        self._calls: Final[SimpleQueue[_Call | None]] = SimpleQueue()
        # Bound once: it goes with every result.
        self._finish = self._delivered
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(
                f"thread {name} cannot be started: {error}", hint="use fewer workers"
            ) from error

    def start(
        self,
        function: Callable[..., object],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        context: contextvars.Context,
        done: Done,
    ) -> None:
        """Hands one call to the thread, which has to be free; from the loop.

        Args:
            context: What the function runs in.
            done: Called in the loop with what the function returned or raised, be it
                `SystemExit`. The thread is free again by then.
        """
        assert not self.busy, "the thread has a call already"
        assert not self._closed, "the thread is closed"
        self.busy = True
        self._done = done
        self._calls.put((function, args, kwargs, context))

    def close(self) -> None:
        """Ends the thread after its present call, whose result is still delivered; does not wait.

        Doing it again does nothing.
        """
        self._closed = True
        self._calls.put(None)

    def join(self, timeout_s: float) -> bool:
        """Waits for the end of the thread; returns whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        # The call is an argument and never a name in here, which would hold it while idle.
        while self._run(self._calls.get()):
            pass

    def _run(self, call: _Call | None) -> bool:
        if call is None:
            return False
        function, args, kwargs, context = call
        value: object = None
        error: BaseException | None = None
        try:
            value = context.run(function, *args, **kwargs)
        except BaseException as raised:  # noqa: BLE001 - it is handed to whoever waits for it
            error = raised
        self._returns.post(self._finish, value, error)
        # The traceback of the error leads to this frame: it would hold the call as long as
        # somebody keeps the error, and the error, in a circle, until the next collection.
        del call, function, args, kwargs, context, value, error
        return True

    def _delivered(self, value: object, error: BaseException | None) -> None:
        done, self._done = self._done, None
        self.busy = False
        assert done is not None
        done(value, error)
