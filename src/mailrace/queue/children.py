"""The processes of a supervisor: started, watched, replaced when they die, and ended."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from mailrace.clock import Clock
from mailrace.events import Events
from mailrace.queue.loops import pause
from mailrace.queue.parent import PARENT_FD, SUPERVISOR, Lifeline

RESTART: Final = 75
"""The exit code of a process that asks to be replaced at once: EX_TEMPFAIL of sysexits.h."""
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 15.0
# A process that lived for so long has shown that it can.
_YOUNG_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarted:
    """A process was started; `number` is its place, which a replacement keeps."""

    number: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnded:
    """A process ended because it was told to, and is not replaced.

    Attributes:
        code: Its exit code; below zero: the signal that ended it.
    """

    number: int
    pid: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDied:
    """A process ended that nobody had told to, or that asked for another; it is replaced.

    Attributes:
        pid: 0 where it could not even be started.
        why: One line: its exit code, the signal's name, or why it could not be started.
        again_in_s: When its replacement comes.
        asked: It asked for it: nothing is wrong with it that it did not tell itself.
    """

    number: int
    pid: int
    why: str
    lived_s: float
    again_in_s: float
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a process is started.

    Attributes:
        command: The arguments, program first, for the process in the place of that number.
        environment: All variables; those for the supervisor's name and pipe are added.
        supervisor: The supervisor's name.
    """

    command: Callable[[int], Sequence[str]]
    environment: Mapping[str, str]
    supervisor: str


def backoff_s(deaths: int, chance: float) -> float:
    """How long a place stays empty after so many young deaths in a row; 0 after none.

    Args:
        chance: Of 0 to 1: the jitter, or all places would fill in the same moment.
    """
    if deaths == 0:
        return 0.0
    longest_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** min(deaths - 1, 30))
    return float(longest_s * (0.5 + chance / 2))


def why_ended(code: int) -> str:
    """An exit code in words."""
    if code == RESTART:
        return "asked to be restarted"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Child:
    """A place that one process after the other fills, until it is to be left empty.

    Attributes:
        pid: Of the process that runs; 0 while none does.
        deaths: Processes of this place that ended without having been told to.
        gone: The place is empty for good.
    """

    def __init__(
        self,
        number: int,
        launch: Launch,
        lifeline: Lifeline,
        *,
        clock: Clock,
        rng: Random,
        events: Events,
        on_gone: Callable[["Child"], object],
    ) -> None:
        self.number = number
        self.pid = 0
        self.deaths = 0
        self.gone = asyncio.Event()
        self._launch = launch
        self._lifeline = lifeline
        self._clock = clock
        self._rng = rng
        self._events = events
        self._on_gone = on_gone
        self._leaving = asyncio.Event()
        self._young = 0
        self._task = asyncio.create_task(self._go_on(), name=f"mailrace process {number}")

    @property
    def is_leaving(self) -> bool:
        return self._leaving.is_set()

    def leave(self) -> None:
        """Asks the process to drain, and has no other one follow. Idempotent."""
        if not self.is_leaving:
            self._leaving.set()
            self.tell(signal.SIGTERM)

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if one runs."""
        if self.pid:
            # Not through the transport, which would look whether it ended, and take the exit code
            # away from those who wait for it. It may have ended, and we are about to hear of it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _go_on(self) -> None:
        try:
            while not self.is_leaving:
                again_in_s = await self._live()
                if again_in_s is None:
                    return
                await pause(again_in_s, self._leaving, self._clock)
        finally:
            self.gone.set()
            self._on_gone(self)

    async def _live(self) -> float | None:
        """Starts a process and waits until it ends; returns when the next one is to come."""
        born_s = self._clock.monotonic_s()
        try:
            process = await self._start()
        except Exception as error:  # noqa: BLE001 - told, and tried again
            return self._died(0, f"cannot be started: {error}", born_s)
        self.pid = pid = process.pid
        self._events.emit(ProcessStarted(number=self.number, pid=pid))
        if self.is_leaving:  # it was told so while it was being started
            self.tell(signal.SIGTERM)
        try:
            code = await process.wait()
        finally:
            self.pid = 0
        if code == 0 or self.is_leaving:
            self._events.emit(ProcessEnded(number=self.number, pid=pid, code=code))
            return None
        return self._died(pid, why_ended(code), born_s, asked=code == RESTART)

    async def _start(self) -> asyncio.subprocess.Process:
        program, *arguments = self._launch.command(self.number)
        return await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            env={
                **self._launch.environment,
                PARENT_FD: str(self._lifeline.fd),
                SUPERVISOR: self._launch.supervisor,
            },
            pass_fds=(self._lifeline.fd,),
            # Ctrl-C in a terminal is for the supervisor, which passes it on once.
            start_new_session=True,
        )

    def _died(self, pid: int, why: str, born_s: float, *, asked: bool = False) -> float:
        lived_s = self._clock.monotonic_s() - born_s
        self.deaths += 1
        if lived_s >= _YOUNG_S:
            self._young = 0
        self._young += 1
        again_in_s = backoff_s(self._young, self._rng.random())
        if asked and self._young == 1:  # who asks over and over is not started over and over
            again_in_s = 0.0
        self._events.emit(
            ProcessDied(
                number=self.number,
                pid=pid,
                why=why,
                lived_s=lived_s,
                again_in_s=again_in_s,
                asked=asked,
            )
        )
        return again_in_s


class Children:
    """All places of a supervisor.

    Args:
        start: What makes a place that calls back when it is empty for good.
    """

    def __init__(self, start: Callable[[int, Callable[[Child], object]], Child]) -> None:
        self._start = start
        self._all: dict[int, Child] = {}
        self._extra: set[int] = set()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def all(self) -> list[Child]:
        """By number; also those that are being left."""
        return [self._all[number] for number in sorted(self._all)]

    @property
    def staying(self) -> list[Child]:
        """Those that are to be filled, without extra ones."""
        return [child for child in self.all if self._stays(child)]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(child.pid for child in self.all if child.pid)

    def scale(self, processes: int) -> None:
        """Adds places, or empties those of the highest numbers, until so many stay."""
        staying = self.staying
        for _ in range(processes - len(staying)):
            self._add()
        for child in staying[processes:]:
            child.leave()

    def add_extra(self) -> Child:
        """A place that does not count until it takes the place of another one."""
        child = self._add()
        self._extra.add(child.number)
        return child

    def exchange(self, old: Child, new: Child) -> None:
        """Has an extra place count, and another one be left."""
        self._extra.discard(new.number)
        old.leave()

    def leave(self) -> None:
        """Empties all of them."""
        for child in self.all:
            child.leave()

    def tell(self, number: signal.Signals) -> None:
        for child in self.all:
            child.tell(number)

    async def wait(self) -> None:
        """Until there is none left."""
        await self._ended.wait()

    def _stays(self, child: Child) -> bool:
        return not child.is_leaving and child.number not in self._extra

    def _add(self) -> Child:
        number = next(n for n in range(1, len(self._all) + 2) if n not in self._all)
        child = self._all[number] = self._start(number, self._forget)
        self._ended.clear()
        return child

    def _forget(self, child: Child) -> None:
        del self._all[child.number]
        self._extra.discard(child.number)
        if not self._all:
            self._ended.set()
