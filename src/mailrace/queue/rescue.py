"""Taking over from processes that died or froze: their journals first, then what they held."""

from dataclasses import dataclass
from pathlib import Path

from mailrace.clock import Clock
from mailrace.errors import UnavailableError
from mailrace.queue.finisher import write_apart
from mailrace.queue.jobs import Finished
from mailrace.queue.journal import (
    JournalReading,
    holder_is_dead,
    read_journal,
    remove_journal,
)
from mailrace.queue.processes import ProcessRow
from mailrace.queue.session import LEASE_S, Place
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store

_NO_RESULT = "no reply"
_DETAIL = "handed over, and the process died before a reply was seen"
_DIED = "worker died"
_DIED_DETAIL = "the process died while it ran the job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """Jobs of a process that died or froze can run again."""

    jobs: int


class Rescuer:
    """Ends every other process that is gone, or silent for a whole lease.

    Of this machine's processes the journals are read: what they say is written to the store. What
    was sent out and must not be sent twice becomes uncertain, what may be run again has a death
    counted, and what was held and not begun is available at once. Where the journal cannot be
    trusted (power cut, deleted), or is on another machine, the store's own notes decide.

    A process of this machine is gone when nobody holds the lock of its journal. One that is there
    is silent when this rescuer has seen the same renewal for the length of its lease, by a clock
    that never jumps. On another machine it is gone when its lease is over by the store's clock.
    """

    def __init__(self, store: Store, place: Place, clock: Clock) -> None:
        self._store = store
        self._folder = place.journals
        self._place = place
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
            Exception: What the first process that could not be ended failed with; the others are
                ended all the same.
        """
        # In this order: a journal that is there before the rows are read, and whose process has no
        # row then and is dead, will never have one.
        journals = list(self._folder.glob("*.journal"))
        processes = await self._store.processes()
        self._tidy(journals, {process.journal for process in processes})
        known = {process.id for process in processes}
        self._seen = {number: seen for number, seen in self._seen.items() if number in known}
        return await self._end_all([process for process in processes if process.id != own])

    async def _end_all(self, processes: list[ProcessRow]) -> int:
        jobs, fault = 0, None
        for process in processes:
            try:
                jobs += await self._end(process)
            except Exception as error:  # noqa: BLE001 - raised below: one must not stop the others
                fault = fault or error
        if fault is not None:
            raise fault
        return jobs

    def _tidy(self, journals: list[Path], known: set[str]) -> None:
        """Removes what processes left that died before they were registered, or while leaving."""
        for path in journals:
            if path.name not in known and holder_is_dead(path):
                remove_journal(path)

    async def _end(self, process: ProcessRow) -> int:
        if process.node != self._place.node:
            return await self._end_elsewhere(process)
        path = self._folder / process.journal
        dead = holder_is_dead(path)
        if not dead and not self._is_silent(process):
            return 0
        reading = read_journal(path, self._place.boot)
        held = await self._take_over(process, reading)
        if held is not None and dead:
            remove_journal(path)
        return held or 0

    async def _take_over(self, process: ProcessRow, reading: JournalReading) -> int | None:
        begun = _begun(reading, int(self._clock.unix_s() * 1000))
        records = [*reading.finished, *begun]
        try:
            return await self._store.rescue(process, records, known=reading.trusted)
        except UnavailableError:
            raise
        except Exception:
            # Written one by one before the process is ended: how attempts ended stays true if it
            # renews meanwhile. What it handed back it might then begin once more.
            ended = [record for record in reading.finished if record.step is not Step.RELEASE]
            if not ended:
                raise
            await write_apart(self._store.finish, ended)
        handed_back = [record for record in reading.finished if record.step is Step.RELEASE]
        return await self._store.rescue(process, [*handed_back, *begun], known=reading.trusted)

    async def _end_elsewhere(self, process: ProcessRow) -> int:
        if not process.expired:
            return 0
        return await self._store.rescue(process, (), known=False) or 0

    def _is_silent(self, process: ProcessRow) -> bool:
        now_s = self._clock.monotonic_s()
        renewal, since_s = self._seen.get(process.id, (None, now_s))
        if renewal != process.expires_ms:
            self._seen[process.id] = process.expires_ms, now_s
            return False
        return now_s - since_s >= _lease_s(process)


def _lease_s(process: ProcessRow) -> float:
    """How long its leases are; one of before an upgrade does not tell when it was heard of."""
    if not process.heartbeat_ms:
        return LEASE_S
    return (process.expires_ms - process.heartbeat_ms) / 1000


def _begun(reading: JournalReading, now_ms: int) -> list[Finished]:
    return [
        _lost(job_id, lease, now_ms) if once else _died(job_id, lease, now_ms)
        for job_id, lease, once in reading.started
    ]


def _lost(job_id: int, lease: int, now_ms: int) -> Finished:
    return Finished(
        job_id, lease, Step.LOSE, JobState.UNCERTAIN, None, _NO_RESULT, _DETAIL, now_ms, "system"
    )


def _died(job_id: int, lease: int, now_ms: int) -> Finished:
    return Finished(
        job_id, lease, Step.DIE, JobState.AVAILABLE, None, _DIED, _DIED_DETAIL, now_ms, "system"
    )
