"""A process's worker: claims from queues for as long as it lives, and has handlers do the jobs."""

import asyncio
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from random import Random
from typing import Final
from uuid import UUID

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError
from mailrace.events import Events
from mailrace.lifecycle import Tasks
from mailrace.pool import NoLimit, RetrySchedule
from mailrace.queue.attempts import storable
from mailrace.queue.begun import Begun
from mailrace.queue.claiming import Claiming
from mailrace.queue.deal import Dealer
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.kinds import Handlers
from mailrace.queue.lines import Lines
from mailrace.queue.loops import Loops, pause
from mailrace.queue.memory import MEMORY_S, MemoryUsedUp, MemoryWatch
from mailrace.queue.orders import Orders
from mailrace.queue.performing import Performer
from mailrace.queue.processes import NewProcess, ProcessState, Vitals
from mailrace.queue.rescue import Rescued, Rescuer
from mailrace.queue.rulebook import RuleBook
from mailrace.queue.sealing import Sealer
from mailrace.queue.session import Place
from mailrace.queue.sessions import Sessions
from mailrace.queue.states import JobState
from mailrace.queue.store import Store
from mailrace.queue.strays import Strays
from mailrace.queue.tally import Tally
from mailrace.queue.upkeep import Upkeep
from mailrace.queue.watching import EVERY_S, Watching
from mailrace.queue.worker_settings import WorkerSettings
from mailrace.queue.workers import Workers

__all__ = ["Worker", "WorkerSettings"]

# Nothing is due: asked again so soon at first, and twice as late each time.
_POLL_MIN_S: Final = 0.05
_POLL_MAX_S: Final = 1.0
# The same where no wake-ups arrive, as behind PgBouncer.
_POLL_DEAF_MAX_S: Final = 0.25
# A handler that does not end when it is cancelled is left behind after so long.
_CANCEL_GRACE_S: Final = 5.0
_ORDERS_S: Final = 0.5
_UPKEEP_S: Final = 0.5


class Worker:
    """Works queues off until it is told to stop.

    `run` ends when `drain` or `stop` was called, from a signal, a command or the program.
    """

    def __init__(
        self,
        store: Store,
        handlers: Handlers,
        *,
        place: Place,
        clock: Clock,
        names: Callable[[], UUID],
        rng: Random,
        events: Events,
        settings: WorkerSettings | None = None,
        sealer: Sealer | None = None,
        supervisor: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._settings = settings = settings or WorkerSettings()
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._now = asyncio.Event()
        self._paused = False
        self._host = socket.gethostname()
        self._poll_s = _POLL_MIN_S
        self.restart = False
        self._rules = RuleBook(store)
        self._performer = Performer(
            handlers,
            sealer=sealer,
            slow_down=self._slow_down,
            rng=rng,
            clock=clock,
            concurrency=settings.concurrency,
        )
        self._finisher = Finisher(store, clock)
        self._workers = Workers(
            workers=settings.concurrency,
            buffer=settings.buffer,
            handler=self._performer,
            chunks=self._performer,
            limiter=NoLimit(),
            finisher=self._finisher,
            retry=RetrySchedule(()),
            clock=clock,
            stopping=self._stopping,
            wake=self._wake,
            events=events,
            on_fault=self.drain,
            cancel_grace_s=_CANCEL_GRACE_S,
            begun=Begun(store),
        )
        self._lines = self._workers.lines = Lines(
            store,
            clock,
            rules=self._rules.of,
            start=self._workers.start_job,
            on_trouble=self._workers.note_trouble,
            places=self._places,
            template=self._rules.template,
        )
        self._claiming = Claiming(
            store,
            Dealer(settings.queues),
            queues=tuple(settings.queues),
            once=self._performer.once,
            clock=clock,
            room=self._lines.room,
            ageing_s=self._rules.ageing_s,
        )
        self._sessions = Sessions(
            store,
            place,
            self._workers,
            self._finisher,
            process=NewProcess(
                journal="",
                host=self._host,
                pid=os.getpid(),
                version=version("mailrace"),
                supervisor=supervisor,
                queues=tuple(settings.queues),
                concurrency=settings.concurrency,
            ),
            clock=clock,
            names=names,
            events=events,
            vitals=self.vitals,
            lease_s=settings.lease_s,
            heartbeat_s=settings.beat_s,
        )
        self._rescuer = Rescuer(store, place, clock)
        self._rules.on_read = self._lines.renew
        self._finisher.on_written = self._workers.look_again
        self._strays = Strays(store, self._workers, self._finisher, self._claiming, clock)
        self._loops = Loops(clock, rng, events)
        self._orders = Orders(store, self)
        alerts = {"alerts": (EVERY_S, Watching(store, events).turn)}
        self._upkeep = Upkeep(store, clock, keep_s=settings.keep_s, others=alerts)
        self._memory: MemoryWatch | None = None
        if settings.memory_max_bytes is not None:
            self._memory = MemoryWatch(settings.memory_max_bytes, clock=clock)
        self._used_up: MemoryUsedUp | None = None

    @property
    def process_id(self) -> int | None:
        """Its id in the store, once it is known there."""
        return None if self._workers.session is None else self._workers.session.process_id

    @property
    def host(self) -> str:
        return self._host

    @property
    def tally(self) -> Tally:
        return self._workers.tally

    @property
    def settled(self) -> int:
        """Attempts whose end the store has."""
        return sum(self._workers.tally.ended.values()) - self._finisher.pending

    def vitals(self) -> Vitals:
        """What others may know of it; asked by the thread that renews the lease."""
        tally, ages_s = self._workers.tally, self._loops.ages_s()
        completed = tally.ended[JobState.COMPLETED]
        return Vitals(
            state=self.state,
            in_hand=tally.in_hand,
            held=self._workers.stock,
            completed=completed,
            failed=sum(tally.ended.values()) - completed,
            stale_s=round(max(ages_s.values(), default=0.0), 3),
            trouble=self._trouble(),
            breakers_open=self._performer.breakers_open(),
            loops_s={name: round(age_s, 3) for name, age_s in ages_s.items()},
        )

    def _trouble(self) -> str:
        """What is in the way: memory, the jobs, claiming or holding them; empty for nothing."""
        if self._used_up is not None:
            return self._used_up.trouble
        session = self._workers.session
        error = self._workers.tally.trouble or self._loops.faults.get("claim")
        if error is None and session is not None:
            error = session.trouble
        if error is None:
            return ""
        if isinstance(error, MailraceError):
            return storable(str(error))
        return storable(traceback.format_exception_only(error)[-1].strip())

    def loop_ages_s(self) -> dict[str, float]:
        """By loop: how long ago its last useful turn ended."""
        return self._loops.ages_s()

    @property
    def state(self) -> ProcessState:
        if self._stopping.is_set():
            return ProcessState.DRAINING
        if self._workers.session is None:
            return ProcessState.STARTING
        return ProcessState.PAUSED if self._paused else ProcessState.WORKING

    def pause(self) -> None:
        """Begins no more attempts, and claims nothing; what is under way goes on. Idempotent."""
        self._paused = True
        self._workers.pause()
        session = self._workers.session
        if session is not None and session.alive:
            self._sessions.hand_back(session)  # others can do it

    def resume(self) -> None:
        self._paused = False
        self._workers.resume()
        self._wake.set()

    def reset_breakers(self) -> None:
        self._performer.reset_breakers()

    def drain(self, *, restart: bool = False) -> None:
        """Takes nothing more, hands back what is not begun, lets attempts end, and leaves.

        Idempotent.

        Args:
            restart: Whoever watches over the process is to start another one.
        """
        self.restart = self.restart or restart
        self._stopping.set()
        self._wake.set()

    def stop(self) -> None:
        """Ends attempts now: those that may be repeated go back, the others become uncertain."""
        self.drain()
        self._now.set()

    async def run(self) -> None:
        """Works until it is told to stop.

        Raises:
            Exception: What failed here that is no handler's doing.
        """
        clerk = Tasks(self.drain)
        clerk.start("finisher", self._finisher.run())
        async with self._performer:
            await self._workers.start()
            try:
                self._start_loops()
                await self._stopping.wait()
                await self._let_end()
            finally:
                await self._wind_up(clerk)

    def _start_loops(self) -> None:
        self._loops.start("claim", self._claim_turn)
        self._loops.start("rescue", self._rescue_turn)
        self._loops.start("rules", self._rules.turn)
        self._loops.start("orders", self._orders_turn)
        # Silent for as long as nothing comes: its age says nothing.
        self._loops.start("wake-ups", self._listen, timed=False)
        if self._settings.upkeep:
            self._loops.start("upkeep", self._upkeep_turn)
        if self._memory is not None:
            self._loops.start("memory", partial(self._memory_turn, self._memory))

    async def _claim_turn(self) -> float:
        """Keeps the workers supplied; returns how long to wait when there is nothing to do."""
        session = await self._sessions.live(self._stopping.is_set)
        await self._rules.known()
        if self._stopping.is_set() or self._paused:
            return await self._rest(_POLL_MAX_S)
        if not self._workers.low:
            return await self._rest(_POLL_MAX_S)
        self._wake.clear()
        try:
            taken = await self._claiming.claim(
                session.process_id, self._workers.wanted(), self._take_in
            )
        except ConflictError:
            session.expire()
            return 0.0
        self._workers.claimed(taken)
        if taken:
            self._poll_s = _POLL_MIN_S
            return 0.0
        longest_s = _POLL_MAX_S if self._store.listening else _POLL_DEAF_MAX_S
        wait_s, self._poll_s = self._poll_s, min(longest_s, self._poll_s * 2)
        due_in_s = self._claiming.due_in_s
        return await self._rest(wait_s if due_in_s is None else min(wait_s, max(0.0, due_in_s)))

    def _take_in(self, jobs: Sequence[ClaimedJob]) -> None:
        self._workers.add(jobs)
        if (self._stopping.is_set() or self._paused) and self._workers.session is not None:
            self._sessions.hand_back(self._workers.session)

    async def _rest(self, seconds: float) -> float:
        """Waits for news, but not for longer; the loop's own pause is then none."""
        await pause(seconds, self._wake, self._clock)
        if self._wake.is_set():
            self._wake.clear()
            self._poll_s = _POLL_MIN_S
        return 0.0

    async def _listen(self) -> float:
        """One wake-up after the other, until there are no more."""
        async for _ in self._store.wakeups(tuple(self._settings.queues)):
            self._claiming.look_again()
            self._wake.set()
        return 1.0

    async def _rescue_turn(self) -> float:
        session = self._workers.session
        if session is None:
            return 0.1
        jobs = await self._strays.look(session)
        jobs += await self._rescuer.rescue(own=session.process_id)
        if jobs:
            self._events.emit(Rescued(jobs=jobs))
        return self._settings.beat_s

    async def _orders_turn(self) -> float:
        await self._orders.turn()
        if self.process_id is not None:
            ids = await self._store.cancels(self.process_id)
            if ids:
                self._workers.cancel_jobs(ids)
        return _ORDERS_S

    async def _upkeep_turn(self) -> float:
        await self._upkeep.turn()
        return _UPKEEP_S

    async def _memory_turn(self, memory: MemoryWatch) -> float:
        # One that is paused stays: whoever took its place would know nothing of the pause.
        if self.state is not ProcessState.WORKING:
            memory.forget()
        elif (used_up := memory.look()) is not None:
            self._used_up = used_up
            self._events.emit(used_up)
            self.drain(restart=True)
        return MEMORY_S

    def _places(self) -> dict[str, str]:
        """What tells it from other processes, for limits of its own."""
        return {"process": str(self.process_id), "host": self._host}

    def _slow_down(self, job: ClaimedJob) -> None:
        self._rules.slow_down(self._lines.names(job.queue, job.tenant))

    async def _let_end(self) -> None:
        """Hands back what is not begun, and gives what is under way its time."""
        self._lines.forget()
        session = self._workers.session
        if session is not None and session.alive:
            self._sessions.hand_back(session)
        ending = asyncio.create_task(self._workers.finish(self._settings.grace_s))
        hurried = asyncio.create_task(self._now.wait())
        await asyncio.wait({ending, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ending.done():
            await self._workers.cancel()
        await ending

    async def _wind_up(self, clerk: Tasks) -> None:
        await self._loops.cancel()
        await self._lines.cancel()
        await self._rules.close()
        await self._sessions.end(clerk)
