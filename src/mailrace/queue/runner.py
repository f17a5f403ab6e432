"""Works a batch off: claims, feeds workers, writes what came of it, until all jobs are final."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, MisuseError
from mailrace.events import Events
from mailrace.lifecycle import Tasks
from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue.attempts import Handler
from mailrace.queue.batches import Batch, BatchReport, queue_of
from mailrace.queue.begun import Begun
from mailrace.queue.claiming import Claiming
from mailrace.queue.deal import Dealer
from mailrace.queue.finisher import Finisher
from mailrace.queue.loops import pause
from mailrace.queue.processes import NewProcess
from mailrace.queue.rescue import Rescued, Rescuer
from mailrace.queue.session import LEASE_S, Place, Session
from mailrace.queue.sessions import Sessions
from mailrace.queue.states import JobState
from mailrace.queue.store import Store
from mailrace.queue.strays import Strays
from mailrace.queue.tally import Tally
from mailrace.queue.workers import Workers

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
class RunnerSettings:
    """How a run goes about its batch.

    Attributes:
        place: Where the processes of this machine that use the store keep their journals.
        workers: Jobs in hand at the same time, at least 1.
        buffer: Claimed jobs that wait for a worker, at most; at least 1.
        wait: Stay until every job is final; otherwise leave what has to wait to the next run.
    """

    place: Place
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
        batch: Batch,
        handler: Handler,
        limiter: Limiter,
        settings: RunnerSettings,
        clock: Clock,
        names: Callable[[], UUID],
        events: Events,
    ) -> None:
        self._store = store
        self._batch_id = batch.id
        self._settings = settings
        self._clock = clock
        self._events = events
        # Without waiting, so many troubles in a row are the server's answer.
        self._patience = min(settings.workers, _TROUBLES)
        self._end: End | None = None
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._rescued_s = float("-inf")
        self._rescuer = Rescuer(store, settings.place, clock)
        queue = queue_of(batch.id)
        # A lane of a job's own decides first; the others of a batch are not to be done twice.
        self._claiming = Claiming(store, Dealer({}), queues=[queue], once=[batch.kind], clock=clock)
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
            begun=Begun(store),
        )
        self._strays = Strays(store, self._workers, self.finisher, self._claiming, clock)
        self._sessions = Sessions(
            store,
            settings.place,
            self._workers,
            self.finisher,
            process=NewProcess(
                journal="", pid=os.getpid(), queues=(queue,), concurrency=settings.workers
            ),
            clock=clock,
            names=names,
            events=events,
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
        self._stopping.set()
        self._wake.set()

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
            session = await self._sessions.live(lambda: self._end is not None)
            await self._rescue(session)
            if not self._workers.low:
                await self._until_woken()
            elif not await self._claim(session):
                await self._look_around()
            self._end_if_stuck()

    async def _let_finish(self) -> None:
        self._stopping.set()
        self._workers.recall()
        await self._workers.finish()

    async def _rescue(self, session: Session) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._rescued_s >= _RESCUE_S:
            self._rescued_s = now_s
            jobs = await self._strays.look(session)
            jobs += await self._rescuer.rescue(own=session.process_id)
            if jobs:
                self._events.emit(Rescued(jobs=jobs))

    async def _claim(self, session: Session) -> bool:
        """Claims what the workers want; false when nothing is available."""
        wanted = self._workers.wanted()
        try:
            taken = await self._claiming.claim(session.process_id, wanted, self._workers.add)
        except ConflictError:
            session.expire()
            return True
        self._workers.claimed(taken)
        return taken > 0

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
        self._stopping.set()
        await self._sessions.end(clerk)


def _only_retries(report: BatchReport) -> bool:
    return report.counts[JobState.AVAILABLE] == report.counts[JobState.RUNNING] == 0
