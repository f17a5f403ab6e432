"""Where a batch stands, from the counts and never by counting."""

import sqlite3

from mailrace.queue.batches import BatchReport, Reason
from mailrace.queue.refusals import no_batch
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.database import one, statement
from mailrace.queue.stores.sqlite.ledger import PACE_SLICE_MS

_RATE_SLICES = 6


def batch_report(connection: sqlite3.Connection, batch_id: int, now_ms: int) -> BatchReport:
    values = {"batch_id": batch_id}
    row = connection.execute(statement("batch_by_id"), values).fetchone()
    if row is None:
        raise no_batch(batch_id)
    name, kind, created_ms, first_ms, last_ms, sealed_ms, completed_ms = row
    counts = dict.fromkeys(JobState, 0)
    for state, jobs in connection.execute(statement("counts_select"), values).fetchall():
        counts[JobState(state)] = jobs
    return BatchReport(
        id=batch_id,
        name=name,
        kind=kind,
        created_ms=created_ms,
        counts=counts,
        next_due_ms=one(connection, "next_due", batch_id=batch_id, now_ms=now_ms),
        first_ms=first_ms,
        last_ms=last_ms,
        rate=_rate(connection, batch_id, first_ms, last_ms),
        sealed=sealed_ms is not None,
        completed_ms=completed_ms,
    )


def batch_reasons(connection: sqlite3.Connection, batch_id: int) -> list[Reason]:
    rows = connection.execute(statement("reasons"), {"batch_id": batch_id}).fetchall()
    return [
        Reason(state=JobState(row[0]), reason=row[1], detail=row[2], jobs=row[3]) for row in rows
    ]


def _rate(
    connection: sqlite3.Connection, batch_id: int, first_ms: int | None, last_ms: int | None
) -> float:
    if first_ms is None or last_ms is None:
        return 0.0
    after = last_ms // PACE_SLICE_MS - _RATE_SLICES
    attempts, first_slice = connection.execute(
        statement("pace_sum"), {"batch_id": batch_id, "after": after}
    ).fetchone()
    since_ms = max(first_ms, first_slice * PACE_SLICE_MS)
    seconds: float = (last_ms - since_ms) / 1000
    return int(attempts) / max(1.0, seconds)
