"""Jobs and results as the statements that write them take them: JSON text. Pure.

PostgreSQL's text cannot hold the character NUL, and what reads JSON into columns refuses it escaped
as well, wherever it stands. Values that may hold anything therefore go as the text of their JSON
where it occurs; in other text it is replaced, so that what a far side answered keeps no batch of
results from being written.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from mailrace.queue.jobs import Finished, NewJob
from mailrace.queue.states import JobState, Step

_NUL: Final = "\\u0000"


class _Completed(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    id: int
    lease: int
    reason: str = ""
    detail: str = ""
    result: msgspec.Raw | None = None
    result_text: str | None = None


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    id: int
    lease: int
    step: Step
    delay_ms: int | None = None
    reason: str = ""
    detail: str = ""
    category: str = ""
    result: msgspec.Raw | None = None
    result_text: str | None = None


def jobs_json(jobs: Sequence[NewJob]) -> str:
    """Jobs as the function `mailrace.enqueue_many` takes them."""
    text = _json(jobs)
    if _NUL not in text:
        return text
    rows: list[dict[str, Any]] = [msgspec.structs.asdict(job) for job in jobs]
    for row in rows:
        row["payload_text"] = bytes(row.pop("payload")).decode()
    return _json(rows)


def completed_json(records: Iterable[Finished]) -> str:
    """Records of jobs that completed, all of them."""
    rows = [_Completed(r.id, r.lease, r.reason, r.detail, r.result) for r in records]
    text = _json(rows)
    return _json([_clean(row) for row in rows]) if _NUL in text else text


def records_json(records: Iterable[Finished]) -> str:
    """Records of any steps."""
    rows = [
        _Record(r.id, r.lease, r.step, r.delay_ms, r.reason, r.detail, r.category, r.result)
        for r in records
    ]
    text = _json(rows)
    return _json([_clean(row) for row in rows]) if _NUL in text else text


def firsts(records: Sequence[Finished]) -> list[Finished]:
    """Of several records of one claim the first."""
    by_claim: dict[tuple[int, int], Finished] = {}
    for record in records:
        by_claim.setdefault((record.id, record.lease), record)
    return list(by_claim.values())


def rest_of(held: Iterable[tuple[Any, ...]], *, known: bool) -> list[Finished]:
    """What becomes of the jobs that a process held when it ended, and told nothing of.

    Args:
        held: Id and lease of each, and whether it may have begun and must not run twice.
        known: Nothing of it was begun.
    """
    return [
        _lost(job_id, lease) if in_doubt and not known else _released(job_id, lease)
        for job_id, lease, in_doubt in held
    ]


def unreadable(job_id: int, lease: int, error: Exception) -> Finished:
    """What becomes of a job whose payload no worker could read."""
    return Finished(
        job_id, lease, Step.FAIL, JobState.FAILED, reason="payload", detail=str(error),
        category="data",
    )  # fmt: skip


def _lost(job_id: int, lease: int) -> Finished:
    return Finished(job_id, lease, Step.LOSE, JobState.UNCERTAIN, reason="no reply")


def _released(job_id: int, lease: int) -> Finished:
    return Finished(job_id, lease, Step.RELEASE, JobState.AVAILABLE)


def _clean(row: _Completed | _Record) -> _Completed | _Record:
    texts = {"reason": _without_nul(row.reason), "detail": _without_nul(row.detail)}
    if isinstance(row, _Record):
        texts["category"] = _without_nul(row.category)
    result = None if row.result is None else bytes(row.result).decode()
    return msgspec.structs.replace(row, **texts, result=None, result_text=result)


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _json(rows: object) -> str:
    return msgspec.json.encode(rows).decode()
