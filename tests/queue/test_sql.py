"""The SQL files of the SQLite store: their headers, their use, and the indexes they really take."""

import re
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

import mailrace.queue.stores.sqlite.database as sqlite_database
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.states import WAITING as WAITING_STATES
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.choosing import parts
from mailrace.queue.stores.sqlite.database import connect, prepare, statement
from mailrace.queue.stores.sqlite.filters import Filter

PACKAGE = Path(sqlite_database.__file__).parent
NAMES = sorted(path.stem for path in (PACKAGE / "sql").iterdir())
HEADER = re.compile(r"-- lock: (write|none)( \([^)]+\))?(; index: (?P<index>[^;]+))?(; guard: .+)?")
# Tables that have a row for every job; all others stay small.
LARGE = {"jobs", "j", "attempts", "keys"}
WAITING = "queue=? AND tenant=? AND priority=? AND run_at_ms<?"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "jobs.db")
    prepare(connection)
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, name: str) -> list[str]:
    values = dict.fromkeys(re.findall(r":(\w+)", re.sub("--.*", "", statement(name))), 1)
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement(name)}", values)
    return [row[3] for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_how_it_locks_finds_and_guards(name: str) -> None:
    header, *lines = statement(name).splitlines()
    found = HEADER.fullmatch(header)
    assert found, header
    first = next(line for line in lines if not line.startswith("--"))
    reads = first.startswith(("SELECT", "WITH", "CREATE TEMP")) or re.match(
        r"(INSERT INTO|UPDATE|DELETE FROM) temp\.", first
    )
    assert found[1] == ("none" if reads else "write")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_used(name: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py"))
    assert f'"{name}"' in code


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("temp_")])
def test_no_statement_goes_through_all_jobs(connection: sqlite3.Connection, name: str) -> None:
    for line in plan(connection, name):
        scanned = re.match(r"SCAN (\w+)(?! VIRTUAL TABLE)\b", line)
        small = "VIRTUAL TABLE" in line or "INDEX jobs_running" in line
        assert not scanned or small or scanned[1] not in LARGE, line


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("batches_done", "counts_batch (batch_id=?)"),
        ("cancels", "jobs_cancelling (process_id=?)"),
        ("blocked_keys", "jobs_blocked (queue=? AND key>?)"),
        ("candidates", f"jobs_ready ({WAITING})"),
        ("choose_expired", "jobs_expiring (expires_ms>? AND expires_ms<?)"),
        ("choose_old_completed", "jobs_completed (queue=? AND ended_ms<?)"),
        ("choose_old_ended", "jobs_ended (state=? AND ended_ms>? AND ended_ms<?)"),
        ("choose_uncertain", "jobs_unwell (batch_id=? AND state=?)"),
        ("chosen_doubles", "jobs_unique (unique_digest=?)"),
        ("chosen_keys", "jobs_blocked (queue=? AND key=?)"),
        ("claiming_fill", f"jobs_ready ({WAITING})"),
        ("counts_select", "counts_batch (batch_id=?)"),
        ("due_count", f"jobs_ready ({WAITING})"),
        ("finishing_hold", "jobs_running (process_id=?)"),
        ("keys_forget", "keys_created (created_ms<?)"),
        ("next_due", "jobs_later (batch_id=? AND run_at_ms>?)"),
        ("process_retire", "jobs_running (process_id=?)"),
        ("queue_unblock", "jobs_blocked (queue=?)"),
        ("queues_waiting", "jobs_ready (queue>?)"),
        ("reasons", "jobs_unwell (batch_id=? AND state=?)"),
        ("running_by_key", "jobs_gated (queue=? AND key=?)"),
        ("running_in_queue", "jobs_gated (queue=?)"),
        ("survey", "jobs_ready (queue=? AND tenant=? AND priority<?)"),
        ("survey", "jobs_ready (queue=? AND tenant>?)"),
        ("unblock", "jobs_blocked (queue=? AND key=?)"),
        ("unique_select", "jobs_unique (unique_digest=?)"),
    ],
)
def test_a_statement_takes_the_index_made_for_it(
    connection: sqlite3.Connection, name: str, index: str
) -> None:
    pattern = rf"USING (COVERING )?INDEX {re.escape(index)}"
    assert any(re.search(pattern, line) for line in plan(connection, name))
    assert index.partition(" ")[0] in statement(name).splitlines()[0]


@pytest.mark.parametrize(
    "name",
    [
        "claim", "claimed", "finish_completed", "finish_others", "finishing_fill",
        "payload_replace",
    ],
)  # fmt: skip
def test_the_jobs_at_hand_are_found_by_their_ids(connection: sqlite3.Connection, name: str) -> None:
    assert any(
        re.fullmatch(r"SEARCH j(obs)? USING INTEGER PRIMARY KEY \(rowid=\?\)", line)
        for line in plan(connection, name)
    )


@pytest.mark.parametrize(
    "name",
    [
        "candidates", "choose_expired", "choose_old_completed", "choose_old_ended",
        "claiming_fill", "next_due", "payloads", "queues_waiting", "survey", "unblock",
    ],
)  # fmt: skip
def test_nothing_is_sorted_to_find_the_first(connection: sqlite3.Connection, name: str) -> None:
    assert not any("B-TREE" in line for line in plan(connection, name))


FILTERS = {
    "ids": JobFilter(ids=(1, 2)),
    "failed": JobFilter(states=(JobState.FAILED,)),
    "failed in a queue": JobFilter(states=(JobState.FAILED,), queue="q"),
    "waiting in a queue": JobFilter(states=(JobState.AVAILABLE,), queue="q"),
    "completed in a queue": JobFilter(states=(JobState.COMPLETED,), queue="q"),
    "queue": JobFilter(queue="q"),
    "batch": JobFilter(batch_id=7),
    "failed in a batch": JobFilter(batch_id=7, states=(JobState.FAILED,)),
    "old": JobFilter(ended_before_ms=5, states=(JobState.COMPLETED,), queue="q"),
    "everything": JobFilter(
        ids=(1,), states=(JobState.FAILED,), queue="q", kind="k", tenant="t", batch_id=1,
        tag="t", category="c", reason="r", text="x", ended_before_ms=1, ended_after_ms=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
def test_a_list_of_jobs_is_found_by_an_index_or_walks_from_the_newest(
    connection: sqlite3.Connection, where: JobFilter, crowded: bool
) -> None:
    if crowded:
        for state in JobState:
            connection.execute("INSERT INTO counts VALUES ('q', 7, ?, 1000000)", (state.value,))
    wanted = Filter(where)
    sql = f"SELECT * {wanted.gathered(connection)} ORDER BY id DESC LIMIT 5"
    lines = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", wanted.values)]
    walks = crowded and where.ids is None and where.batch_id is None
    assert ("SCAN jobs" in lines) is walks, lines
    assert not any("TEMP B-TREE" in line for line in lines)


@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("among", [frozenset(WAITING_STATES), frozenset(JobState)])
def test_a_choice_is_made_from_an_index(
    connection: sqlite3.Connection, where: JobFilter, among: frozenset[JobState]
) -> None:
    wanted = Filter(where, among)
    for part in parts(wanted):
        rows = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT id {part} LIMIT 5", wanted.values
        ).fetchall()
        assert not any(row[3] == "SCAN jobs" for row in rows), (part, rows)


@pytest.mark.parametrize("name", NAMES)
def test_states_are_literals(name: str) -> None:
    """A partial index is not used for a parameter."""
    exempt = {"finishing_fill", "end_waiting", "job_insert_alike", "choose_old_ended"}
    assert "state = :" not in statement(name) or name in exempt


def test_migrations_are_numbered_without_gaps() -> None:
    names = sorted(
        path.name
        for path in files(sqlite_database.__package__ or "").joinpath("migrations").iterdir()
    )
    assert [name[:4] for name in names] == [f"{n:04}" for n in range(1, len(names) + 1)]
