"""Choosing jobs for a step that a person or a clock decides on, and carrying it out."""

import sqlite3

from mailrace.queue.jobrows import JobFilter
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.database import run, statement
from mailrace.queue.stores.sqlite.filters import Filter
from mailrace.queue.stores.sqlite.gates import let_in
from mailrace.queue.stores.sqlite.ledger import shift


def choose(
    connection: sqlite3.Connection,
    where: JobFilter,
    among: frozenset[JobState],
    limit: int,
    *,
    also: str = "true",
) -> int:
    """Fills the table `chosen` with jobs in any of these states; returns how many.

    Args:
        also: One more condition, a piece of SQL.
    """
    run(connection, "chosen_clear")
    chosen = 0
    for part in parts(Filter(where, among)):
        sql = f"INSERT OR IGNORE INTO temp.chosen SELECT id {part} AND {also} LIMIT :limit"
        values = Filter(where, among).values | {"limit": max(0, limit - chosen)}
        chosen += connection.execute(sql, values).rowcount
    return chosen


def parts(wanted: Filter) -> list[str]:
    """Where to look, one after the other: straight from an index, whatever its length."""
    if not wanted.states:
        return []
    if wanted.where.ids is not None:
        return [f"FROM jobs WHERE {wanted.conditions}"]
    if wanted.where.batch_id is not None:
        return [f"FROM jobs INDEXED BY jobs_batch WHERE {wanted.conditions}"]
    return [
        f"FROM jobs INDEXED BY {source.index} WHERE {wanted.terms_of(source)}"
        f" AND {wanted.conditions}"
        for source in wanted.sources
    ]


def move_chosen(connection: sqlite3.Connection, to: JobState | None) -> set[str]:
    """Counts the chosen jobs in another state, or nowhere; returns their queues.

    It has to come before the step itself, while they still are what they were.
    """
    queues = set()
    for queue, batch_id, state, jobs in connection.execute(statement("chosen_sums")).fetchall():
        shift(connection, queue, batch_id, state, -jobs)
        if to is not None:
            shift(connection, queue, batch_id, to, jobs)
        queues.add(queue)
    return queues


def end_chosen(connection: sqlite3.Connection, state: JobState, now_ms: int) -> int:
    """Ends waiting jobs that were chosen; returns how many."""
    move_chosen(connection, state)
    ended = run(connection, "end_waiting", state=state.value, now_ms=now_ms)
    let_in_after_chosen(connection)
    return ended


def let_in_after_chosen(connection: sqlite3.Connection) -> None:
    """Brings back others with the keys of the chosen jobs, which may have been next in turn."""
    for queue, key in connection.execute(statement("chosen_keys")).fetchall():
        let_in(connection, queue, key)


def revive_chosen(connection: sqlite3.Connection, now_ms: int) -> int:
    """Makes chosen jobs available; those whose unique key is taken stay as they are."""
    run(connection, "chosen_doubles")
    for queue in move_chosen(connection, JobState.AVAILABLE):
        run(connection, "arrivals_add", queue=queue)
    return run(connection, "revive", now_ms=now_ms)


def delete_chosen(connection: sqlite3.Connection) -> int:
    move_chosen(connection, None)
    run(connection, "delete_attempts")
    return run(connection, "delete_jobs")
