"""Works a batch off: claims, feeds workers, writes what came of it, until all jobs are final."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, MisuseError
from mailrace.events import Events
from mailrace.lifecycle import Tasks
from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue.attempts import Handler, released
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import BatchReport
from mailrace.queue.journal import boot_id
from mailrace.queue.rescue import Rescuer
from mailrace.queue.session import LEASE_S, Session
from mailrace.queue.states import JobState
from mailrace.queue.store import Store
from mailrace.queue.workers import Tally, Workers, pause

# How long to look away when nothing can be done; other processes may finish or die meanwhile.
_LOOK_S = 1.0
_SOON_S = 0.05
_RESCUE_S = LEASE_S / 6
_TROUBLES = 3


class End(StrEnum):
    """Why a run came to its end."""

    ALL_FINAL = "all final"
    LEFT = "left for the next run"
    STOPPED = "stopped"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """Jobs of a process that died or froze can run again."""

    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """This process was silent for a whole lease; the jobs it had not begun were let go."""

    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How a run goes about its batch.

    Attributes:
        journals: The folder of the journals of everyone who uses this store.
        workers: Jobs in hand at the same time, at least 1.
        buffer: Claimed jobs that wait for a worker, at most; at least 1.
        wait: Stay until every job is final; otherwise leave what has to wait to the next run.
    """

    journals: Path
    workers: int = 5
    buffer: int = 1000
    retry: RetrySchedule = field(default_factory=RetrySchedule)
    wait: bool = True

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise MisuseError(f"{self.workers} workers do nothing", hint="give at least 1")
        if self.buffer < 1:
            raise MisuseError(f"a buffer of {self.buffer} holds nothing", hint="give at least 1")


class Runner:
    """One run over one batch by this process."""

    def __init__(
        self,
        *,
        store: Store,
        batch_id: int,
        handler: Handler,
        limiter: Limiter,
        settings: RunnerSettings,
        clock: Clock,
        names: Callable[[], UUID],
        events: Events,
    ) -> None:
        self._store = store
        self._batch_id = batch_id
        self._settings = settings
        self._clock = clock
        self._names = names
        self._boot = boot_id()
        self._events = events
        # Without waiting, so many troubles in a row are the server's answer.
        self._patience = min(settings.workers, _TROUBLES)
        self._end: End | None = None
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._rescued_s = float("-inf")
        self._rescuer = Rescuer(store, settings.journals, clock)
        self.finisher = Finisher(store, clock)
        self._workers = Workers(
            workers=settings.workers,
            buffer=settings.buffer,
            handler=handler,
            limiter=limiter,
            finisher=self.finisher,
            retry=settings.retry,
            clock=clock,
            stopping=self._stopping,
            wake=self._wake,
            events=events,
            on_fault=self.stop,
        )

    @property
    def committed(self) -> int:
        """Attempts that the far side may have by now."""
        return self._workers.committed

    @property
    def tally(self) -> Tally:
        return self._workers.tally

    def stop(self) -> None:
        """Finishes what the far side may have, recalls the rest, and ends. Idempotent."""
        self._end = self._end or End.STOPPED
        self._take_no_more()
        self._wake.set()

    def _take_no_more(self) -> None:
        self._stopping.set()
        self._workers.stop()

    async def run(self) -> End:
        """Works until every job of the batch is final, or `stop` is called.

        Cancelling it stops at once: what was handed over without a reply becomes uncertain.

        Raises:
            UnavailableError: The store cannot be used. What is in flight is finished first, and
                what is known stays in the journal.
        """
        clerk = Tasks(self.stop)
        clerk.start("finisher", self.finisher.run())
        await self._workers.start()
        try:
            await self._fill()
            await self._let_finish()
        except MailraceError:
            await self._let_finish()
            raise
        finally:
            await self._wind_up(clerk)
        return self._end or End.ALL_FINAL

    async def _fill(self) -> None:
        """Keeps the workers supplied until there is nothing left to do."""
        while self._end is None:
            await self._live_session()
            await self._rescue()
            if not self._workers.low:
                await self._until_woken()
            elif not await self._claim():
                await self._look_around()
            self._end_if_stuck()

    async def _let_finish(self) -> None:
        self._take_no_more()
        self._workers.recall()
        await self._workers.finish()

    async def _live_session(self) -> None:
        """Opens a session, and a new one where the old one's leases have run out."""
        session = self._workers.session
        if session is not None and session.alive:
            return
        if session is not None:
            # Somebody else may have these by now.
            self._events.emit(LeaseLost(jobs=len(self._workers.give_up_stock())))
            while self.committed and self._end is None:  # their answers still count
                await self._sleep(_SOON_S)
            await self.finisher.settled()
            gone = await self._store.retire(session.process_id)
            await session.close(keep_journal=not gone)
        self._workers.session = await Session.open(
            self._store, self._settings.journals, self._boot, self._names(), self._clock
        )

    async def _rescue(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._rescued_s >= _RESCUE_S:
            self._rescued_s = now_s
            assert self._workers.session is not None
            jobs = await self._rescuer.rescue(own=self._workers.session.process_id)
            if jobs:
                self._events.emit(Rescued(jobs=jobs))

    async def _claim(self) -> bool:
        """Claims what the workers want; false when nothing is available."""
        assert self._workers.session is not None
        wanted = self._workers.wanted()
        process_id = self._workers.session.process_id
        claiming = asyncio.create_task(self._store.claim(process_id, self._batch_id, wanted))
        try:
            jobs = await asyncio.shield(claiming)
        except ConflictError:
            self._workers.session.expire()
            return True
        except asyncio.CancelledError:
            with contextlib.suppress(MailraceError):  # what the store gave us is to be handed back
                self._workers.add(await claiming)
            raise
        self._workers.add(jobs)
        return bool(jobs)

    async def _until_woken(self) -> None:
        """Until the stock runs low, a worker is stuck or the run is to stop; not much longer."""
        await pause(_RESCUE_S, self._wake, self._clock)
        self._wake.clear()

    def _end_if_stuck(self) -> None:
        """Ends before everything is done if there is a reason to."""
        if self._end is not None:
            return
        if self.tally.rejected:
            self._end = End.REJECTED
        elif not self._settings.wait and self.tally.troubles >= self._patience:
            self._end = End.LEFT

    async def _look_around(self) -> None:
        """Nothing can be claimed: end, or wait until something can."""
        if self.tally.in_hand or self.finisher.pending or self._workers.stock:
            await self._sleep(_SOON_S)
        else:
            await self._decide(await self._store.report(self._batch_id))

    async def _decide(self, report: BatchReport) -> None:
        if report.final == report.accepted:
            self._end = End.ALL_FINAL
        elif not self._settings.wait and _only_retries(report):
            self._end = End.LEFT
        elif report.next_due_ms is None:
            await self._sleep(_LOOK_S)
        else:
            due_s = report.next_due_ms / 1000 - self._clock.unix_s()
            await self._sleep(max(0.0, min(_LOOK_S, due_s)))

    async def _sleep(self, seconds: float) -> None:
        await pause(seconds, self._stopping, self._clock)

    async def _wind_up(self, clerk: Tasks) -> None:
        """Hands back what was not begun, and leaves the books in order."""
        self._take_no_more()
        session, gone = self._workers.session, False
        try:
            await self._workers.cancel()
            if session is not None:
                gone = await self._settle(session, clerk)
        finally:
            await clerk.cancel()
            if session is not None:
                await session.close(keep_journal=not gone)

    async def _settle(self, session: Session, clerk: Tasks) -> bool:
        """Tells the store everything; whether it has nothing more to ask this process."""
        now_ms = int(self._clock.unix_s() * 1000)
        for job in self._workers.give_up_stock():
            self.finisher.add(session, released(job, now_ms))
        settled = asyncio.create_task(self.finisher.settled())
        ended = asyncio.create_task(clerk.drain())
        try:
            await asyncio.wait({settled, ended}, return_when=asyncio.FIRST_COMPLETED)
            clerk.check()
            settled.result()
        finally:
            settled.cancel()
            ended.cancel()
        return await self._store.retire(session.process_id)


def _only_retries(report: BatchReport) -> bool:
    return report.counts[JobState.AVAILABLE] == report.counts[JobState.RUNNING] == 0
