"""New code on what the previous version left, and an upgrade while others work."""

import asyncio
import sqlite3
import time
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from mailrace.jobs import JobState
from mailrace.queue import boot_id
from mailrace.queue.stores.postgres import migrate as postgres_migrate
from mailrace.queue.stores.postgres.migrate import Migration, migrate, migrations
from mailrace.queue.stores.sqlite import database
from mailrace.wiring import migrate as migrate_store
from tests.system.kills.books import KINDS, Books

NOW_MS = int(time.time() * 1000) - 60_000
# Those of a campaign that the first version was sending when it was killed: number, state, process
# and lease. Its journal says that 4 was sent, that 5 went out, and that 6 is to be tried again.
OLD = {
    1: ("completed", None, 1), 2: ("failed", None, 1), 3: ("available", None, 0),
    4: ("running", 7, 2), 5: ("running", 7, 2), 6: ("running", 7, 2), 7: ("running", 7, 2),
    8: ("retryable", None, 1),
}  # fmt: skip


def test_a_half_sent_campaign_of_the_first_version_goes_on(
    sqlite_books: Books, stack: ExitStack
) -> None:
    """With the journal that its killed process left, in the first version's words."""
    books = sqlite_books
    path = Path(books.store.removeprefix("sqlite:///"))
    left_by_the_first_version(path, books.journals / "old.journal")
    assert asyncio.run(migrate_store(books.store)) != []
    books.kinds = dict.fromkeys(OLD, "once")
    process = books.process(stack)
    process.until("working")
    books.until_final()
    process.drain()
    states = books.states()
    assert states[JobState.COMPLETED] == {1, 3, 4, 6, 7, 8}
    assert states[JobState.FAILED] == {2}
    assert states[JobState.UNCERTAIN] == {5}
    assert books.begun() == dict.fromkeys((3, 6, 7, 8), 1)
    assert sum(books.counts().values()) == len(OLD)
    assert not list(books.journals.glob("*.journal"))


def left_by_the_first_version(path: Path, journal: Path) -> None:
    script = files(database.__package__ or "").joinpath("migrations", "0001_jobs.sql")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script.read_text(encoding="utf-8"))
        connection.executescript(
            f"""
            PRAGMA journal_mode = WAL;
            PRAGMA user_version = 1;
            PRAGMA application_id = {database.APPLICATION_ID};
            UPDATE sequences SET value = 2 WHERE name = 'lease';
            INSERT INTO processes VALUES (7, 'old.journal', {NOW_MS});
            INSERT INTO batches VALUES (1, 'news', 'once', '{{}}', {NOW_MS}, {NOW_MS}, {NOW_MS});
            """
        )
        for job, (state, process_id, lease) in OLD.items():
            connection.execute(
                "INSERT INTO jobs (id, batch_id, key, state, attempt, lease, process_id, run_at_ms)"
                " VALUES (?, 1, ?, ?, ?, ?, ?, ?)",
                (job, f"k{job}", state, min(lease, 1), lease, process_id,
                 NOW_MS if state == "retryable" else None),
            )  # fmt: skip
            connection.execute("INSERT INTO payloads VALUES (?, '{}')", (job,))
        connection.execute("INSERT INTO counts SELECT 1, state, count(*) FROM jobs GROUP BY state")
    journal.parent.mkdir()
    journal.write_text(
        f'{{"mailrace_journal":1,"boot":"{boot_id()}"}}\n'
        "[4,2]\n[5,2]\n[6,2]\n"
        f'[4,2,"complete","completed",null,"250","sent",{NOW_MS}]\n'
        f'[6,2,"retry","retryable",{NOW_MS},"451","later",{NOW_MS}]\n',
        encoding="ascii",
    )


def test_jobs_in_every_state_before_the_last_migration_are_worked_off_after_it(
    postgres_books: Books, stack: ExitStack
) -> None:
    books, last = postgres_books, migrations()[-1]
    migrate(books.store, up_to=last.number - 1)
    with psycopg.connect(books.store) as connection:
        (process_id,) = connection.execute(
            "INSERT INTO mailrace.processes (journal, expires_at, started_at, heartbeat_at, node,"
            " pid, concurrency, host, version, supervisor, queues)"
            " VALUES ('gone', now(), now(), now(), 'elsewhere', 1, 1, '', '', '', '{*}')"
            " RETURNING id"
        ).fetchone() or (0,)
        rows = connection.execute(
            "INSERT INTO mailrace.jobs"
            " (kind, state, payload, once, begun, attempt, lease, process_id)"
            " SELECT kind, state::mailrace.job_state, '{}', kind = 'once', ran, ran::int,"
            " nextval('mailrace.leases'), CASE WHEN ran THEN %s END"
            " FROM unnest(%s::text[]) AS kind, unnest(%s::text[]) AS state,"
            " LATERAL (SELECT state = 'running') AS r (ran) RETURNING id, kind, state::text",
            (process_id, list(KINDS), ["scheduled", "available", "running", "retryable"]),
        ).fetchall()
        connection.execute(
            "INSERT INTO mailrace.tallies (queue, batch_id, state, jobs, at)"
            " SELECT queue, 0, state, count(*), now() FROM mailrace.jobs GROUP BY queue, state"
        )
    assert migrate(books.store) == [last.name]
    books.kinds = {job: kind for job, kind, _ in rows}
    process = books.process(stack)
    process.until("working")
    books.until_final()
    process.drain()
    states = books.states()
    lost = {job for job, kind, state in rows if (kind, state) == ("once", "running")}
    assert states == {
        JobState.UNCERTAIN: lost,
        JobState.COMPLETED: set(books.kinds) - lost,
    }
    assert books.begun() == dict.fromkeys(set(books.kinds) - lost, 1)
    assert sum(books.counts().values()) == len(books.kinds)


def test_processes_work_on_while_a_newer_version_upgrades_the_store(
    postgres_books: Books, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says it may: the old ones go on, and more of them may come."""
    books, known = postgres_books, migrations()
    books.enqueue([*KINDS] * 40)
    process = books.process(stack, pause_s=0.01)
    process.jobs_until("finished", 20)
    newer = Migration(
        number=known[-1].number + 1,
        name="newer",
        oldest_code=1,
        script="ALTER TABLE mailrace.jobs ADD newer text DEFAULT 'yes';"
        "ALTER TABLE mailrace.jobs_completed ADD newer text;"
        "ALTER TABLE mailrace.jobs_ended ADD newer text;"
        "ALTER TABLE mailrace.processes ADD newer text NOT NULL DEFAULT 'yes';",
    )
    monkeypatch.setattr(postgres_migrate, "migrations", lambda: [*known, newer])
    assert migrate(books.store) == ["newer"]
    monkeypatch.undo()
    assert books.counts().get(JobState.COMPLETED) != len(books.kinds), "it came too late"
    other = books.process(stack)
    other.until("working")
    books.enqueue([*KINDS] * 10)
    books.until_final()
    for each in (process, other):
        each.drain()
        assert all(line["event"] != "loop failed" for line in each.said)
    assert set(books.states()) == {JobState.COMPLETED}
    assert max(books.begun().values()) == 1
    books.check()
