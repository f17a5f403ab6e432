"""What the soak's jobs do, and how each of them notes that it did."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mailrace.pool import Job, JobState, Kind, RetryLaterError, current_job

if TYPE_CHECKING:
    from mailrace.pool.worker import Worker

_HANG_S = 3600.0
_LATER_S = 0.02


class FaultError(Exception):
    """What a handler raises on purpose."""


class Record:
    """What one job did, as its handler saw it.

    Attributes:
        starts: How often the handler began.
        returned: How often it came to its end.
        running: Handlers of this job that run now; never more than one.
        job: As the pool has it; `None` until it was accepted or has begun.
        endings: How often the job told that it had ended.
    """

    __slots__ = ("endings", "job", "kind", "number", "returned", "running", "starts")

    def __init__(self, number: int, kind: Kind) -> None:
        self.number = number
        self.kind = kind
        self.starts = self.returned = self.running = self.endings = 0
        self.job: Job[int] | None = None


class Witness:
    """Counts what really ran, and compares it with what the pool says.

    Attributes:
        records: Jobs since the last comparison.
        drift: What did not fit, in words.
        killed: Workers whose task was ended under a thread: nobody hears when that returns.
        nested: Submits a job from inside another one, and returns its result.
    """

    def __init__(self, folder: Path) -> None:
        self.records: dict[int, Record] = {}
        self.drift: list[str] = []
        self.accepted = self.late_returns = self.killed = 0
        self.states: Counter[JobState] = Counter()
        self.nested: Callable[[], Coroutine[object, object, int]] | None = None
        self._log = folder / "processes"
        self._log.touch()
        self._busy: set[Worker] = set()
        self._lock = threading.Lock()

    @property
    def log(self) -> str:
        """Where the handlers in processes note what they do."""
        return str(self._log)

    @property
    def running(self) -> int:
        """Handlers that run now, in tasks and threads."""
        return sum(record.running for record in tuple(self.records.values()))

    def opened(self) -> None:
        """Another pool: its ledger begins at nothing."""
        self.accepted = self.late_returns = self.killed = 0
        self.states.clear()

    def found(self, problem: str) -> None:
        self.drift.append(problem)

    @contextmanager
    def attempt(self, number: int) -> Iterator[None]:
        """Around what a handler does, in whatever thread."""
        job = current_job()
        record, worker = self.records.get(number), job.worker
        if record is None or worker is None:
            self.found(f"job {number} runs, but was refused, or had ended before")
            yield
            return
        with self._lock:
            record.job = job
            record.starts += 1
            record.running += 1
            if record.running > 1:
                self.found(f"job {number} runs twice at the same time")
            if worker in self._busy:
                self.found(f"worker {worker.number} has two jobs at the same time")
            self._busy.add(worker)
        try:
            yield
            record.returned += 1
        finally:
            with self._lock:
                record.running -= 1
                self._busy.discard(worker)

    def ended(self, job: Job[int], record: Record) -> None:
        """A job told that it had ended."""
        record.endings += 1
        self.states[job.state] += 1

    def compare(self) -> None:
        """Looks at every job since the last time; all of them have to be over."""
        for line in self._log.read_text(encoding="ascii").splitlines():
            number, what = line.split()
            record = self.records.get(int(number))
            if record is None:
                self.found(f"job {number} ran in a process, but was refused, or had ended before")
            else:
                record.starts += what == "start"
                record.returned += what == "return"
        self._log.write_text("")
        for record in self.records.values():
            self._compare(record)
        self.records.clear()

    def _compare(self, record: Record) -> None:
        job, where = record.job, f"job {record.number} ({record.kind})"
        if job is None:
            self.found(f"{where}: nobody knows whether it was accepted")
            return
        said = f"{where}: {job.state}, {job.attempts} attempts, {job.reason}"
        ran = f"{record.starts} starts, {record.returned} returns, {record.endings} endings"
        completed = job.state is JobState.COMPLETED
        fits = record.endings == 1 and not record.running
        if record.kind is Kind.PROCESS:
            # One that is killed may have begun or not, and have returned or not.
            fits &= record.starts <= job.attempts and record.returned >= completed
        else:
            fits &= record.returned == 1 if completed else record.returned <= 1
            self.late_returns += record.returned - completed
        if record.kind is Kind.LOOP:
            fits &= record.starts == job.attempts
        if record.kind is Kind.THREAD:
            fits &= job.attempts - 1 <= record.starts <= job.attempts
        if not fits:
            self.found(f"{said}; but {ran}")


async def on_loop(witness: Witness, number: int, deed: str, seconds: float) -> int:
    """One attempt on the loop."""
    with witness.attempt(number):
        match deed:
            case "return":
                pass
            case "turn":
                await asyncio.sleep(0)
            case "wait":
                await asyncio.sleep(seconds)
            case "raise":
                await asyncio.sleep(0)
                raise FaultError(number)
            case "later":
                raise RetryLaterError(_LATER_S)
            case "hang":
                await asyncio.sleep(_HANG_S)
            case "ignore":
                await _stubborn(seconds)
            case "cancel itself":
                raise asyncio.CancelledError
            case "nest":
                assert witness.nested is not None
                await witness.nested()
            case _:
                raise ValueError(deed)
    return number


def in_thread(witness: Witness, number: int, deed: str, seconds: float) -> int:
    """One attempt in a thread; it cannot be stopped, and so never hangs for long."""
    with witness.attempt(number):
        if deed == "raise":
            raise FaultError(number)
        if deed == "wait":
            time.sleep(seconds)
    return number


def in_process(log: str, number: int, deed: str) -> int:
    """One attempt in a process of its own."""
    note(log, number, "start")
    match deed:
        case "raise":
            raise FaultError(number)
        case "hang":
            time.sleep(_HANG_S)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
    note(log, number, "return")
    return number


def note(log: str, number: int, what: str) -> None:
    """Notes one thing in one write, so that processes do not disturb each other."""
    line = f"{number} {what}\n".encode("ascii")
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line)
    finally:
        os.close(file)


async def _stubborn(seconds: float) -> None:
    """Goes on for a while although it is cancelled, as often as it is."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
