"""Writing results to the store in batches, and never forgetting one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from mailrace.clock import Clock
from mailrace.errors import UnavailableError
from mailrace.queue.jobs import Finished
from mailrace.queue.session import Session
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store

# Long enough to collect a batch at full speed, short enough that nobody notices.
_LINGER_S = 0.01
_BATCH = 2000
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRefused:
    """The store would not take how an attempt ended; its job has failed instead."""

    job_id: int
    error: Exception


class Finisher:
    """Collects results and writes them, many in one transaction.

    While the store is out of reach they are kept here, and in the journal.

    Attributes:
        trouble: Why the last try failed, if it did.
        refused: Records that came too late: their leases had gone.
        on_refused: Told of each record that the store would not take.
        on_written: Called when some were written: what waited for them may be due.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[tuple[Session, Finished]] = []
        self._some = asyncio.Event()
        self._resting = asyncio.Event()
        self._resting.set()
        self._fault: Exception | None = None
        self.trouble: UnavailableError | None = None
        self.refused = 0
        self.on_refused: Callable[[ResultRefused], object] | None = None
        self.on_written: Callable[[], object] | None = None

    def add(self, session: Session, record: Finished) -> None:
        self._waiting.append((session, record))
        self._some.set()
        self._resting.clear()

    def known(self) -> set[tuple[int, int]]:
        """The claims whose end it has still to write, by job and lease."""
        return {(record.id, record.lease) for _, record in self._waiting}

    @property
    def pending(self) -> int:
        return len(self._waiting)

    async def settled(self) -> None:
        """Returns when the store has everything.

        Raises:
            UnavailableError: The store is out of reach, at a try made since; `run` goes on trying.
            Exception: What `run` ended with.
        """
        if self.trouble is not None and self._fault is None:
            self._resting.clear()  # a hiccup that is over is no trouble: the next try tells
        await self._resting.wait()
        if self._fault is not None:
            raise self._fault
        if self.trouble is not None:
            raise self.trouble

    async def run(self) -> None:
        """Writes until it is cancelled.

        Raises:
            Exception: The store takes nothing, not even that a job has failed.
        """
        try:
            await self._go_on()
        except Exception as error:
            self._fault = error
            self._resting.set()
            raise

    async def _go_on(self) -> None:
        while True:
            await self._some.wait()
            if len(self._waiting) < _BATCH:
                await self._clock.sleep_s(_LINGER_S)
            try:
                await self._flush()
            except UnavailableError as error:
                self.trouble = error
                self._resting.set()
                await self._clock.sleep_s(_RETRY_S)

    async def _flush(self) -> None:
        part = [record for _, record in self._waiting[:_BATCH]]
        for refusal in await write_apart(self._write, part):
            if self.on_refused is not None:
                self.on_refused(refusal)

    async def _write(self, records: Sequence[Finished]) -> None:
        """Writes the first of those that wait."""
        self.refused += await self._store.finish(records)
        self.trouble = None
        part = self._waiting[: len(records)]
        del self._waiting[: len(records)]
        for session in {session for session, _ in part}:
            session.journal.settled([record for owner, record in part if owner is session])
        if self._waiting:
            self._resting.clear()
        else:
            self._some.clear()
            self._resting.set()
        if self.on_written is not None:
            self.on_written()


async def write_apart(
    write: Callable[[Sequence[Finished]], Awaitable[object]], records: Sequence[Finished]
) -> list[ResultRefused]:
    """Writes records in their order; one that the store refuses holds up no others.

    Halved until it is alone, it is written once more without what a far side or a handler said:
    the job has failed, and is not run again.

    Args:
        write: Writes some of them, all or none.

    Raises:
        UnavailableError: The store is out of reach; some may have been written.
        Exception: The store refuses even the failure: it is not the record that is wrong.
    """
    try:
        await write(records)
    except UnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - a store may refuse with anything
        if len(records) == 1:
            return await _write_refused(write, records[0], error)
        half = len(records) // 2
        return [
            *await write_apart(write, records[:half]),
            *await write_apart(write, records[half:]),
        ]
    return []


async def _write_refused(
    write: Callable[[Sequence[Finished]], Awaitable[object]], record: Finished, error: Exception
) -> list[ResultRefused]:
    try:
        await write([record])  # what refused it may be gone the next moment
    except UnavailableError:
        raise
    except Exception:  # noqa: BLE001 - the same once more
        await write([_failure(record, error)])
        return [ResultRefused(job_id=record.id, error=error)]
    return []


def _failure(record: Finished, error: Exception) -> Finished:
    return msgspec.structs.replace(
        record,
        step=Step.FAIL,
        state=JobState.FAILED,
        delay_ms=None,
        reason="result refused",
        detail=type(error).__name__,
        category="system",
        result=None,
    )
