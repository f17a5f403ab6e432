"""Taking over from processes that died or froze: their journals first, then what they held."""

from pathlib import Path

from mailrace.clock import Clock
from mailrace.queue.jobs import Finished, ProcessRow
from mailrace.queue.journal import (
    JournalReading,
    boot_id,
    holder_is_dead,
    read_journal,
    remove_journal,
)
from mailrace.queue.session import LEASE_S
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store

_NO_RESULT = "no reply"
_DETAIL = "handed over, and the process died before a reply was seen"
_DETAIL_UNKNOWN = "the process died, and its journal is not whole: nobody knows if this went out"


class Rescuer:
    """Ends every other process of this machine that is gone, or silent for a whole lease.

    What its journal says is written to the store. What it had sent out without seeing a reply
    becomes uncertain. What it held and had not begun is available at once - unless the journal
    cannot be trusted (power cut, deleted): then nobody knows, and all of it is uncertain.

    A process is gone when nobody holds the lock of its journal. One that is there is silent when
    this rescuer has seen the same renewal for the length of a lease, by a clock that never jumps.
    """

    def __init__(self, store: Store, folder: Path, clock: Clock) -> None:
        self._store = store
        self._folder = folder
        self._boot = boot_id()
        self._clock = clock
        self._seen: dict[int, tuple[int, float]] = {}

    async def rescue(self, own: int | None = None) -> int:
        """Looks once.

        Args:
            own: The process that is looking.

        Returns:
            How many jobs were held beyond what the journals knew.

        Raises:
            UnavailableError: The store or a journal cannot be read.
        """
        # In this order: a journal that is there before the rows are read, and whose process has no
        # row then and is dead, will never have one.
        journals = list(self._folder.glob("*.journal"))
        processes = await self._store.processes()
        self._tidy(journals, {process.journal for process in processes})
        known = {process.id for process in processes}
        self._seen = {number: seen for number, seen in self._seen.items() if number in known}
        return sum([await self._end(process) for process in processes if process.id != own])

    def _tidy(self, journals: list[Path], known: set[str]) -> None:
        """Removes what processes left that died before they were registered, or while leaving."""
        for path in journals:
            if path.name not in known and holder_is_dead(path):
                remove_journal(path)

    async def _end(self, process: ProcessRow) -> int:
        path = self._folder / process.journal
        dead = holder_is_dead(path)
        if not dead and not self._is_silent(process):
            return 0
        reading = read_journal(path, self._boot)
        now_ms = int(self._clock.unix_s() * 1000)
        rest = _released(now_ms) if reading.trusted else _lost(0, 0, _DETAIL_UNKNOWN, now_ms)
        held = await self._store.rescue(process, _records(reading, now_ms), rest=rest)
        if held is not None and dead:
            remove_journal(path)
        return held or 0

    def _is_silent(self, process: ProcessRow) -> bool:
        now_s = self._clock.monotonic_s()
        renewal, since_s = self._seen.get(process.id, (None, now_s))
        if renewal != process.expires_ms:
            self._seen[process.id] = process.expires_ms, now_s
            return False
        return now_s - since_s >= LEASE_S


def _records(reading: JournalReading, now_ms: int) -> list[Finished]:
    lost = [_lost(job_id, lease, _DETAIL, now_ms) for job_id, lease in reading.started]
    return [*reading.finished, *lost]


def _lost(job_id: int, lease: int, detail: str, now_ms: int) -> Finished:
    return Finished(job_id, lease, Step.LOSE, JobState.UNCERTAIN, None, _NO_RESULT, detail, now_ms)


def _released(now_ms: int) -> Finished:
    return Finished(0, 0, Step.RELEASE, JobState.AVAILABLE, at_ms=now_ms)
