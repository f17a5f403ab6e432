"""Outcomes as a stream, for a program that follows what its pool does."""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, get_args

from mailrace.errors import MisuseError
from mailrace.pool.outcome import Outcome
from mailrace.pool.states import JobState

Slow = Literal["drop oldest", "drop newest", "wait"]


class OutcomeStream:
    """Outcomes in the order in which they come, from the moment of its making.

    A reader that falls behind by more than `buffer` outcomes loses some, counted in `missed`; or,
    where it was asked for, the pool starts no more jobs until it has caught up. It ends with the
    pool, with `close`, with its `async with`, or when nobody holds it any more. A reader that is
    cancelled loses nothing: the next one goes on where it stopped.

    Attributes:
        missed: Outcomes that the reader was too slow for.
    """

    def __init__(self, streams: "Streams", buffer: int, slow: Slow, *, retries: bool) -> None:
        self._streams = streams
        self._buffer = buffer
        self._slow = slow
        self._outcomes: deque[Outcome] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._ended = False
        self.retries = retries
        self.missed = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome.

        Raises:
            StopAsyncIteration: The pool or the stream is closed and everything was read.
            MisuseError: Another task is reading.
        """
        while not self._outcomes:
            if self._ended:
                raise StopAsyncIteration
            if self._reader is not None:
                raise MisuseError(
                    "two tasks read one stream of outcomes", hint="give each a stream of its own"
                )
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        outcome = self._outcomes.popleft()
        if len(self._outcomes) == self._buffer - 1:
            self._streams.caught_up()
        return outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def stalls(self) -> bool:
        """Whether the pool has to wait for it."""
        return self._slow == "wait" and len(self._outcomes) >= self._buffer

    def close(self) -> None:
        """Takes no more outcomes in; those that are there can still be read. Idempotent."""
        self._ended = True
        self._slow = "drop newest"
        self._streams.leave(self)
        self._wake()

    def put(self, outcome: Outcome) -> None:
        if len(self._outcomes) < self._buffer or self._slow == "wait":
            self._outcomes.append(outcome)
        else:
            self.missed += 1
            if self._slow == "drop oldest":
                self._outcomes.popleft()
                self._outcomes.append(outcome)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Streams:
    """All streams of a pool.

    Args:
        on_change: Called when a stream that stalled the pool does so no longer.
        soon: Has the loop call back soon; may be called in any thread.
    """

    def __init__(
        self, on_change: Callable[[], None], soon: Callable[[Callable[[], object]], None]
    ) -> None:
        self._streams: list[weakref.ref[OutcomeStream]] = []
        self._on_change = on_change
        self._soon = soon
        self._waits = True
        self.retries = False

    def __bool__(self) -> bool:
        return bool(self._streams)

    @property
    def stalled(self) -> bool:
        """Whether a reader is to be waited for."""
        if not self._waits:
            return False
        for ref in self._streams:  # for every outcome, so without lists and generators
            stream = ref()
            if stream is not None and stream.stalls:
                return True
        return False

    def stop_waiting(self) -> None:
        """Has nobody waited for any more: what readers are too slow for is kept for them."""
        self._waits = False
        self._on_change()

    def open(self, buffer: int, slow: Slow, *, retries: bool) -> OutcomeStream:
        if buffer < 1:
            raise MisuseError(f"buffer is {buffer}", hint="give at least 1")
        if slow not in get_args(Slow):
            raise MisuseError(f"slow is {slow!r}", hint=f"give one of: {', '.join(get_args(Slow))}")
        stream = OutcomeStream(self, buffer, slow, retries=retries)
        # Whoever forgets a stream without closing it must not leave it filling up for ever.
        self._streams.append(weakref.ref(stream, self._forgotten))
        self._look()
        self._on_change()
        return stream

    def put(self, outcome: Outcome) -> None:
        retrying = outcome.state is JobState.RETRYABLE
        for ref in self._streams:
            stream = ref()
            if stream is not None and (stream.retries or not retrying):
                stream.put(outcome)

    def leave(self, stream: OutcomeStream) -> None:
        self._streams = [ref for ref in self._streams if ref() not in (stream, None)]
        self._look()
        self._on_change()

    def caught_up(self) -> None:
        self._on_change()

    def close(self) -> None:
        for stream in self._open():
            stream.close()

    def _open(self) -> list[OutcomeStream]:
        return [stream for ref in self._streams if (stream := ref()) is not None]

    def _forgotten(self, _: weakref.ref[OutcomeStream]) -> None:
        # The collector calls this in whatever thread and in the middle of whatever it finds there.
        self._soon(self._sweep)

    def _sweep(self) -> None:
        self._streams = [ref for ref in self._streams if ref() is not None]
        self._look()
        self._on_change()

    def _look(self) -> None:
        self.retries = any(stream.retries for stream in self._open())
