"""Writing how attempts ended, fenced by lease, with the counts that go with it."""

import sqlite3
from collections.abc import Sequence

import msgspec

from mailrace.queue.jobs import Finished
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.database import run, statement

PACE_SLICE_MS = 10_000


def write_finished(connection: sqlite3.Connection, records: Sequence[Finished]) -> int:
    """Writes the records whose lease still holds and returns how many did not.

    All of them go through a temporary table in a few statements: SQLite then works outside the
    interpreter's lock, beside the event loop and not against it (`benchmarks/bench_send.py`).
    """
    if not records:
        return 0
    run(connection, "finishing_clear")
    run(connection, "finishing_fill", records=msgspec.json.encode(records).decode())
    run(connection, "finishing_fence")
    sums = connection.execute(statement("finishing_sums")).fetchall()
    run(connection, "finish_attempts")
    run(connection, "finish_jobs")
    for batch_id, state, jobs, ended, first_ms, last_ms in sums:
        shift(connection, batch_id, JobState(state), jobs)
        shift(connection, batch_id, JobState.RUNNING, -jobs)
        if ended:
            run(connection, "batch_touch", batch_id=batch_id, first_ms=first_ms, last_ms=last_ms)
            run(
                connection, "pace_add",
                batch_id=batch_id, slice=last_ms // PACE_SLICE_MS, attempts=ended,
            )  # fmt: skip
    written: int = sum(jobs for _, _, jobs, *_ in sums)
    return len(records) - written


def shift(connection: sqlite3.Connection, batch_id: int, state: JobState, jobs: int) -> None:
    """Adds `jobs`, which may be negative, to the count of a state."""
    run(connection, "counts_shift", batch_id=batch_id, state=state.value, jobs=jobs)
