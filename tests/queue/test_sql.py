"""The SQL files of the SQLite store: their headers, their use, and the indexes they really take."""

import re
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

import mailrace.queue.stores.sqlite.database as sqlite_database
from mailrace.queue.stores.sqlite.database import connect, prepare, statement

PACKAGE = Path(sqlite_database.__file__).parent
NAMES = sorted(path.stem for path in (PACKAGE / "sql").iterdir())
HEADER = re.compile(r"-- lock: (write|none)( \([^)]+\))?(; index: (?P<index>[^;]+))?(; guard: .+)?")
# Tables that have a row for every job; all others stay small.
LARGE = {"jobs", "j", "payloads", "p", "attempts", "a"}


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
    writes = not first.startswith("SELECT") and "temp.finishing" not in first
    assert found[1] == ("write" if writes else "none")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_used(name: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py"))
    assert f'"{name}"' in code


@pytest.mark.parametrize("name", NAMES)
def test_no_statement_goes_through_all_jobs(connection: sqlite3.Connection, name: str) -> None:
    for line in plan(connection, name):
        scanned = re.match(r"SCAN (\w+)(?! VIRTUAL TABLE)\b", line)
        assert not scanned or "VIRTUAL TABLE" in line or scanned[1] not in LARGE, line


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("claim", "jobs_available (batch_id=?)"),
        ("claimed", "jobs_running (process_id=? AND lease=?)"),
        ("held_by", "jobs_running (process_id=?)"),
        ("next_due", "jobs_retryable (batch_id=?)"),
        ("process_retire", "jobs_running (process_id=?)"),
        ("reasons", "jobs_unwell (batch_id=? AND state=?)"),
        ("resend", "jobs_unwell (batch_id=? AND state=?)"),
        ("stage", "jobs_retryable (batch_id=? AND run_at_ms<?)"),
    ],
)
def test_a_statement_takes_the_index_made_for_it(
    connection: sqlite3.Connection, name: str, index: str
) -> None:
    assert any(f"USING INDEX {index}" in line for line in plan(connection, name))
    assert index.partition(" ")[0] in statement(name).splitlines()[0]


@pytest.mark.parametrize("name", ["claim", "stage", "next_due"])
def test_nothing_is_sorted_to_find_the_first(connection: sqlite3.Connection, name: str) -> None:
    assert not any("B-TREE" in line for line in plan(connection, name))


@pytest.mark.parametrize("name", NAMES)
def test_states_are_literals(name: str) -> None:
    """A partial index is not used for a parameter."""
    assert "state = :" not in statement(name) or " counts " in statement(name)


def test_migrations_are_numbered_without_gaps() -> None:
    names = sorted(
        path.name
        for path in files(sqlite_database.__package__ or "").joinpath("migrations").iterdir()
    )
    assert [name[:4] for name in names] == [f"{n:04}" for n in range(1, len(names) + 1)]
