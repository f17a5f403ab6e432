"""Writing results to the store in batches, and never forgetting one."""

import asyncio

from mailrace.clock import Clock
from mailrace.errors import UnavailableError
from mailrace.queue.jobs import Finished
from mailrace.queue.session import Session
from mailrace.queue.store import Store

# Long enough to collect a batch at full speed, short enough that nobody notices.
_LINGER_S = 0.01
_BATCH = 1000
_RETRY_S = 1.0


class Finisher:
    """Collects results and writes them, many in one transaction.

    While the store is out of reach they are kept here, and in the journal.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[tuple[Session, Finished]] = []
        self._some = asyncio.Event()
        self._resting = asyncio.Event()
        self._resting.set()
        self.trouble: UnavailableError | None = None
        self.refused = 0

    def add(self, session: Session, record: Finished) -> None:
        self._waiting.append((session, record))
        self._some.set()
        self._resting.clear()

    @property
    def pending(self) -> int:
        return len(self._waiting)

    async def settled(self) -> None:
        """Returns when the store has everything.

        Raises:
            UnavailableError: The store is out of reach; `run` goes on trying.
        """
        await self._resting.wait()
        if self.trouble is not None:
            raise self.trouble

    async def run(self) -> None:
        """Writes until it is cancelled."""
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
        part = self._waiting[:_BATCH]
        self.refused += await self._store.finish([record for _, record in part])
        self.trouble = None
        del self._waiting[: len(part)]
        for session in {session for session, _ in part}:
            session.journal.settled([record for owner, record in part if owner is session])
        if self._waiting:
            self._resting.clear()
        else:
            self._some.clear()
            self._resting.set()
