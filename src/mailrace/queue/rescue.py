"""Taking over from processes that died or froze: their journals first, then what they held."""

from pathlib import Path

from mailrace.queue.jobs import Finished
from mailrace.queue.journal import (
    JournalReading,
    holder_is_dead,
    read_journal,
    remove_journal,
)
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store

_NO_RESULT = "no reply"
_DETAIL = "handed over, and the process died before a reply was seen"
_DETAIL_UNKNOWN = "the process died, and its journal is not whole: nobody knows if this went out"


async def rescue_the_dead(store: Store, folder: Path, boot: str, now_ms: int) -> int:
    """Ends every process of this machine that is gone, or silent for a whole lease.

    What its journal says is written to the store. What it had sent out without seeing a reply
    becomes uncertain. What it held and had not begun is available at once - unless the journal
    cannot be trusted (power cut, deleted): then nobody knows, and all of it is uncertain.

    Returns:
        How many jobs they held beyond what their journals knew.

    Raises:
        UnavailableError: The store or a journal cannot be read.
    """
    rescued = 0
    for process in await store.processes():
        path = folder / process.journal
        dead = holder_is_dead(path)
        if not dead and process.expires_ms > now_ms:
            continue
        reading = read_journal(path, boot)
        rest = _released(now_ms) if reading.trusted else _lost(0, 0, _DETAIL_UNKNOWN, now_ms)
        held = await store.rescue(process, _records(reading, now_ms), rest=rest)
        if held is not None:
            rescued += held
            if dead:
                remove_journal(path)
    return rescued


def _records(reading: JournalReading, now_ms: int) -> list[Finished]:
    lost = [_lost(job_id, lease, _DETAIL, now_ms) for job_id, lease in reading.started]
    return [*reading.finished, *lost]


def _lost(job_id: int, lease: int, detail: str, now_ms: int) -> Finished:
    return Finished(job_id, lease, Step.LOSE, JobState.UNCERTAIN, None, _NO_RESULT, detail, now_ms)


def _released(now_ms: int) -> Finished:
    return Finished(0, 0, Step.RELEASE, JobState.AVAILABLE, at_ms=now_ms)
