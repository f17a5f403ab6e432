"""Writing how attempts ended, fenced by lease, with the counts that go with it."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from mailrace.queue.figures import MINUTE_MS
from mailrace.queue.jobs import DEATHS_MAX, Finished
from mailrace.queue.states import JobState, Step
from mailrace.queue.stores.sqlite.database import run, statement
from mailrace.queue.stores.sqlite.gates import let_in

PACE_SLICE_MS = 10_000
# Steps after which a job runs again, unless somebody wants it cancelled or it died too often.
_JUDGED = frozenset({Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.DIE})
_NO_ATTEMPT = frozenset({Step.RELEASE, Step.SNOOZE})
_UNKNOWN = "the process died, and its journal is not whole: nobody knows if this was done"

_Alike = tuple[Step, JobState, int | None, str, str]
_Varying = tuple[int, int, int, str, msgspec.Raw | None]


class _Sum(NamedTuple):
    """Jobs of one queue and batch that went into one state.

    Attributes:
        attempts: How many of them were begun.
        gated: Whether others may have waited for one of them.
    """

    queue: str
    batch_id: int
    state: str
    jobs: int
    attempts: int
    first_ms: int
    last_ms: int
    gated: bool


def write_finished(
    connection: sqlite3.Connection, records: Sequence[Finished], *, now_ms: int
) -> int:
    """Writes the records whose lease still holds and returns how many did not.

    All of them go through a temporary table in a few statements: SQLite then works outside the
    interpreter's lock, beside the event loop and not against it (`benchmarks/bench_send.py`).
    """
    if not records:
        return 0
    run(connection, "finishing_clear")
    written = 0
    alike = _alike(records, now_ms)
    for (step, state, delay_ms, category, reason), rows in alike.items():
        written += run(
            connection, "finishing_fill",
            step=step, state=state, begun=step not in _NO_ATTEMPT, category=category,
            reason=reason,
            run_at_ms=None if delay_ms is None else now_ms + delay_ms,
            records=msgspec.json.encode(rows).decode(),
        )  # fmt: skip
    if any(step in _JUDGED for step, *_ in alike):
        run(connection, "finishing_judge", deaths_max=DEATHS_MAX)
    _write(connection, now_ms, others=any(step is not Step.COMPLETE for step, *_ in alike))
    return len(records) - written


def _alike(records: Sequence[Finished], now_ms: int) -> dict[_Alike, list[_Varying]]:
    """The records by what most of them share."""
    groups: dict[_Alike, list[_Varying]] = {}
    for record in records:
        alike = (record.step, record.state, record.delay_ms, record.category, record.reason)
        varying = (record.id, record.lease, record.at_ms or now_ms, record.detail, record.result)
        if alike in groups:
            groups[alike].append(varying)
        else:
            groups[alike] = [varying]
    return groups


def let_go(connection: sqlite3.Connection, process_id: int, *, known: bool, now_ms: int) -> int:
    """Ends everything that a process holds, without any record; returns how many jobs."""
    run(connection, "finishing_clear")
    held = run(
        connection, "finishing_hold",
        process_id=process_id, lost=not known, detail=_UNKNOWN, now_ms=now_ms,
    )  # fmt: skip
    run(connection, "finishing_judge", deaths_max=DEATHS_MAX)
    _write(connection, now_ms, others=True)
    return held


def shift(connection: sqlite3.Connection, queue: str, batch_id: int, state: str, jobs: int) -> None:
    """Adds `jobs`, which may be negative, to the count of a state; batch 0 stands for none."""
    run(
        connection, "counts_shift",
        queue=queue, batch_id=batch_id, state=state, jobs=jobs,
    )  # fmt: skip


def _write(connection: sqlite3.Connection, now_ms: int, *, others: bool) -> None:
    """Carries out what stands in the temporary table.

    Args:
        others: Whether anything but completions is there.
    """
    sums = [_Sum(*row) for row in connection.execute(statement("finishing_sums")).fetchall()]
    if others:
        run(connection, "finishing_dead")
        run(connection, "finish_attempts")
        run(connection, "finish_others")
    run(connection, "finish_completed")
    for ended in sums:
        shift(connection, ended.queue, ended.batch_id, ended.state, ended.jobs)
        shift(connection, ended.queue, ended.batch_id, JobState.RUNNING, -ended.jobs)
        if ended.attempts:
            _note_pace(connection, ended, now_ms)
    if any(ended.gated for ended in sums):
        for queue, key in connection.execute(statement("finishing_keys")).fetchall():
            let_in(connection, queue, key)


def _note_pace(connection: sqlite3.Connection, ended: _Sum, now_ms: int) -> None:
    run(
        connection, "throughput_add",
        minute=now_ms // MINUTE_MS, queue=ended.queue, state=ended.state, jobs=ended.attempts,
    )  # fmt: skip
    if ended.batch_id:
        run(
            connection, "batch_touch",
            batch_id=ended.batch_id, first_ms=ended.first_ms, last_ms=ended.last_ms,
        )  # fmt: skip
        run(
            connection, "pace_add",
            batch_id=ended.batch_id, slice=ended.last_ms // PACE_SLICE_MS, attempts=ended.attempts,
        )  # fmt: skip
