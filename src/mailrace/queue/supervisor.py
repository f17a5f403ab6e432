"""What keeps the worker processes of a machine: starts, watches, replaces and stops them."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from mailrace.clock import Clock
from mailrace.errors import MailraceError, MisuseError
from mailrace.events import Events
from mailrace.queue.children import Child, Children, Launch
from mailrace.queue.loops import Loops, pause
from mailrace.queue.parent import Lifeline
from mailrace.queue.presence import Presence
from mailrace.queue.processes import ProcessRow, ProcessState
from mailrace.queue.rolling import Rolling
from mailrace.queue.staffing import StaffingSettings, StaffingState, decide, load_of
from mailrace.queue.store import Figures, Fleet
from mailrace.queue.supervisor_orders import SupervisorOrders
from mailrace.queue.supervisor_settings import SupervisorSettings

_NOTE_S: Final = 2.0
_ORDERS_S: Final = 0.5
_STAFFING_S: Final = 5.0
_KILL_S: Final = 0.5
# The last whole minute, and the one that is not over.
_THROUGHPUT_HOURS: Final = 0.05


class SupervisorStore(Fleet, Figures, Protocol):
    """What a supervisor asks of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """The number of processes was changed, for `reason`."""

    before: int
    processes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorEnded:
    """A supervisor and its processes ended.

    Attributes:
        error: Why others could not be told; they will take it for gone without being stopped.
    """

    name: str
    error: MailraceError | None = None


class Supervisor:
    """Keeps a number of worker processes until it is told to stop.

    It never waits for the store: processes are watched and replaced while that is out of reach.

    Args:
        command: The arguments, program first, of one process, given the number of its place.
        environment: The variables of the processes; those of `parent` are added.
    """

    def __init__(
        self,
        store: SupervisorStore,
        command: Callable[[int], Sequence[str]],
        environment: Mapping[str, str],
        *,
        clock: Clock,
        rng: Random,
        events: Events,
        settings: SupervisorSettings | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._events = events
        self._settings = settings = settings or SupervisorSettings()
        self._bounds = settings.bounds
        self._host = socket.gethostname()
        self._name = settings.name or f"{self._host}-{os.getpid()}"
        self._launch = Launch(command=command, environment=environment, supervisor=self._name)
        self._presence = Presence(store, self._name, self._host, tuple(settings.queues))
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._killing = asyncio.Event()
        self._lifeline: Lifeline | None = None
        self._children = Children(self._start_child)
        self._rolling = Rolling(
            self._children,
            self._works,
            clock=clock,
            events=events,
            start_limit_s=settings.start_limit_s,
        )
        self._staffing = StaffingState()
        self._loops = Loops(clock, rng, events)
        self._orders = SupervisorOrders(store, self)

    @property
    def name(self) -> str:
        return self._name

    @property
    def host(self) -> str:
        return self._host

    @property
    def bounds(self) -> StaffingSettings:
        return self._bounds

    @property
    def processes(self) -> int:
        """Those that there are to be."""
        return len(self._children.staying)

    @property
    def pids(self) -> tuple[int, ...]:
        """Those that run, also what is on its way out."""
        return self._children.pids

    @property
    def state(self) -> str:
        if self._stopping.is_set():
            return "draining"
        return "restarting" if self._rolling.is_on else "working"

    def stop(self) -> None:
        """Lets all processes drain, and ends when they have; called again it has them hurry.

        A hurried process ends its attempts at once. One that has not ended `kill_after_s` later,
        or when this is called a third time, is killed.
        """
        if self._hurried.is_set():
            self._killing.set()
        elif self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    def drain(self) -> None:
        """Lets all processes drain, and ends when they have. Idempotent."""
        self._stopping.set()

    def restart(self) -> int:
        """Replaces all processes, one after the other; returns how many."""
        replaced = self._rolling.begin()
        if replaced:
            self._loops.hurry("restart")
            self._loops.hurry("note")
        return replaced

    def scale(self, processes: int) -> None:
        """Sees to it that there are so many.

        Raises:
            MisuseError: That is more or fewer than there may be.
        """
        bounds = self._bounds
        # Where some were stopped by hand, more of them are welcome also below the minimum.
        least = min(bounds.processes_min, self.processes + 1)
        if not least <= processes <= bounds.processes_max:
            raise MisuseError(
                f"{processes} processes cannot be: {bounds.processes_min} to"
                f" {bounds.processes_max} may run here",
                hint="give a number between them, or start the supervisor with other bounds",
            )
        self._staffing = StaffingState(changed_s=self._clock.monotonic_s())
        self._change(processes, "by order")

    async def run(self) -> None:
        """Keeps the processes until it is told to stop, by a signal, an order or the program.

        SIGTERM and SIGINT call `stop`, SIGHUP calls `restart`. Call it once.
        """
        error: MailraceError | None = None
        self._lifeline = Lifeline()
        try:
            with _signals(self):
                self._children.scale(self._settings.processes)
                self._start_loops()
                await self._stopping.wait()
                await self._end_processes()
        finally:
            await self._loops.cancel()
            await self._kill()
            self._lifeline.close()
            error = await self._presence.leave()
            self._events.emit(SupervisorEnded(name=self._name, error=error))

    def _start_loops(self) -> None:
        self._loops.start("restart", self._rolling.turn)
        self._loops.start("note", self._note_turn)
        self._loops.start("orders", self._orders_turn)
        if self._bounds.processes_min < self._bounds.processes_max:
            self._loops.start("staffing", self._staffing_turn)

    def _start_child(self, number: int, on_gone: Callable[[Child], object]) -> Child:
        assert self._lifeline is not None
        return Child(
            number,
            self._launch,
            self._lifeline,
            clock=self._clock,
            rng=self._rng,
            events=self._events,
            on_gone=on_gone,
        )

    def _change(self, processes: int, reason: str) -> None:
        before = self.processes
        if processes != before:
            self._children.scale(processes)
            self._events.emit(Scaled(before=before, processes=processes, reason=reason))

    async def _end_processes(self) -> None:
        self._rolling.end()
        self._children.leave()
        ended = asyncio.create_task(self._children.wait())
        await _either(ended, self._hurried.wait())
        if not ended.done():
            self._children.tell(signal.SIGTERM)
            limit_s = self._settings.kill_after_s
            await _either(ended, pause(limit_s, self._killing, self._clock))
        await self._kill()
        await ended

    async def _kill(self) -> None:
        """Ends what is left, here and where this task was cancelled."""
        self._children.leave()
        ended = asyncio.create_task(self._children.wait())
        while not ended.done():  # one may just be coming into the world
            self._children.tell(signal.SIGKILL)
            await _either(ended, self._clock.sleep_s(_KILL_S))

    async def _works(self, pid: int) -> bool:
        return any(
            row.pid == pid and row.host == self._host and row.vitals.state is ProcessState.WORKING
            for row in await self._mine()
        )

    async def _mine(self) -> list[ProcessRow]:
        """The processes of this supervisor as the store knows them."""
        rows = await self._store.processes()
        return [row for row in rows if row.supervisor == self._name and not row.expired]

    async def _note_turn(self) -> float:
        await self._presence.tell(
            processes=self.processes, pids=self.pids, state=self.state, bounds=self._bounds
        )
        return _NOTE_S

    async def _orders_turn(self) -> float:
        if await self._orders.turn():
            self._loops.hurry("note")
        return _ORDERS_S

    async def _staffing_turn(self) -> float:
        # Below the minimum there are only as many as somebody stopped by hand.
        if self._stopping.is_set() or self._rolling.is_on:
            return _STAFFING_S
        if self.processes < self._bounds.processes_min:
            return _STAFFING_S
        load = load_of(
            self._settings.queues,
            await self._store.queue_figures(),
            await self._store.throughput(_THROUGHPUT_HOURS),
            await self._mine(),
            processes=self.processes,
            now_ms=await self._store.now_ms(),
        )
        decision = decide(load, self._bounds, self._clock.monotonic_s(), self._staffing)
        self._staffing = decision.state
        if decision.processes != load.processes and not self._stopping.is_set():
            self._change(decision.processes, decision.reason)
        return _STAFFING_S


async def _either(ended: asyncio.Task[None], other: Coroutine[Any, Any, object]) -> None:
    """Waits until one of the two is over; `other` is not waited for any longer."""
    waiting = asyncio.create_task(other)
    try:
        await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


@contextmanager
def _signals(supervisor: Supervisor) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    calls = {
        signal.SIGTERM: supervisor.stop,
        signal.SIGINT: supervisor.stop,
        signal.SIGHUP: supervisor.restart,
    }
    for number, call in calls.items():
        loop.add_signal_handler(number, call)
    try:
        yield
    finally:
        for number in calls:
            loop.remove_signal_handler(number)
