"""Keeps a process known to its store: a session, and the next one when that has run out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from mailrace.clock import Clock
from mailrace.events import Events
from mailrace.lifecycle import Tasks
from mailrace.queue.attempts import released
from mailrace.queue.finisher import Finisher
from mailrace.queue.heartbeat import HEARTBEAT_S
from mailrace.queue.processes import NewProcess, Vitals
from mailrace.queue.session import LEASE_S, Place, Session
from mailrace.queue.store import Store
from mailrace.queue.workers import Workers

_SOON_S = 0.05
# A handler that does not end when it is cancelled is not waited for any longer.
_LET_GO_S = 1.0
# Nor one whose job may be out: whoever takes the old session over finds it in the journal.
_LET_GO_COMMITTED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """This process was silent for a whole lease; the jobs it had not begun were let go."""

    jobs: int


class Sessions:
    """The sessions of one process, one after the other, each under a name of its own."""

    def __init__(
        self,
        store: Store,
        place: Place,
        workers: Workers,
        finisher: Finisher,
        *,
        process: NewProcess,
        clock: Clock,
        names: Callable[[], UUID],
        events: Events,
        vitals: Callable[[], Vitals] = Vitals,
        lease_s: float = LEASE_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._store = store
        self._place = place
        self._workers = workers
        self._finisher = finisher
        self._process = process
        self._clock = clock
        self._names = names
        self._events = events
        self._vitals = vitals
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s

    async def live(self, ending: Callable[[], bool]) -> Session:
        """The session, or a new one where its leases have run out.

        Args:
            ending: Whether not to wait for answers any more.
        """
        session = self._workers.session
        if session is not None and session.alive:
            return session
        if session is not None:
            # Somebody else may have these by now.
            self._events.emit(LeaseLost(jobs=len(self._workers.give_up_stock())))
            await self._let_go(ending)
            await self._finisher.settled()
            gone = await self._store.retire(session.process_id)
            await session.close(keep_journal=not gone)
        self._workers.session = session = await Session.open(
            self._store,
            self._place,
            name=self._names(),
            clock=self._clock,
            process=self._process,
            vitals=self._vitals,
            lease_s=self._lease_s,
            heartbeat_s=self._heartbeat_s,
        )
        return session

    async def _let_go(self, ending: Callable[[], bool]) -> None:
        """Ends the attempts that somebody else may make by now; answers still count."""
        self._workers.recall()
        began_s = self._clock.monotonic_s()
        while not ending() and self._workers.under_way:
            longest_s = _LET_GO_COMMITTED_S if self._workers.committed else _LET_GO_S
            if self._clock.monotonic_s() - began_s >= longest_s:
                return
            await self._clock.sleep_s(_SOON_S)

    async def end(self, clerk: Tasks) -> None:
        """Hands back what was not begun, tells the store everything, and leaves.

        Args:
            clerk: The tasks that write to the store; ended afterwards.
        """
        session, gone = self._workers.session, False
        try:
            await self._workers.cancel()
            if session is not None:
                self.hand_back(session)
                gone = await self._settle(session, clerk)
        finally:
            await clerk.cancel()
            if session is not None:
                await session.close(keep_journal=not gone)

    def hand_back(self, session: Session) -> None:
        """Gives up what was claimed and not begun."""
        now_ms = int(self._clock.unix_s() * 1000)
        for job in self._workers.give_up_stock():
            self._finisher.add(session, released(job, now_ms))

    async def _settle(self, session: Session, clerk: Tasks) -> bool:
        """Tells the store everything; whether it has nothing more to ask this process."""
        settled = asyncio.create_task(self._finisher.settled())
        ended = asyncio.create_task(clerk.drain())
        try:
            await asyncio.wait({settled, ended}, return_when=asyncio.FIRST_COMPLETED)
            clerk.check()
            if not settled.done():  # whoever writes was cancelled: the journal has the rest
                return False
            settled.result()
        finally:
            settled.cancel()
            ended.cancel()
        return await self._store.retire(session.process_id)
