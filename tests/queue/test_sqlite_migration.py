"""A store that the first version made goes on under this one, with nothing lost or doubled."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mailrace.queue.stores.sqlite.database as sqlite_database
from mailrace.errors import UnavailableError
from mailrace.queue import ClaimedJob, JobState, Step
from mailrace.queue.jobs import Finished, Lane
from mailrace.queue.limits import LimitRow, schedule_of
from mailrace.queue.stores.sqlite.database import APPLICATION_ID
from tests.queue.houses import (
    SqliteHouse,
    claim_of,
    counts,
    ended,
    enter,
    new,
    now_ms,
    process_row,
    some,
)
from tests.support.clock import VirtualClock

NOW_MS = 1_800_000_000_000
CREATED_MS = NOW_MS - 3_600_000
RELAY = LimitRow(name="relay", rates="10/s")
Job = tuple[str, int, int, int | None, int | None, str | None]
# Key: state, attempt, lease, process, due, and the step of its last attempt.
JOBS: dict[str, Job] = {
    "new": ("available", 0, 0, None, None, None),
    "released": ("available", 0, 3, None, None, None),
    "staged": ("available", 1, 4, None, None, "retry"),
    "in hand": ("running", 1, 8, 7, None, None),
    "again in hand": ("running", 2, 9, 7, None, "retry"),
    "due": ("retryable", 1, 5, None, NOW_MS - 1, "retry"),
    "later": ("retryable", 2, 6, None, NOW_MS + 90_000, "retry"),
    "sent": ("completed", 1, 1, None, None, "complete"),
    "refused": ("failed", 1, 2, None, None, "fail"),
    "silent": ("uncertain", 1, 7, None, None, "lose"),
}


@pytest.fixture
def old(sqlite_house: SqliteHouse) -> Iterator[sqlite3.Connection]:
    """A store as the first version left it."""
    with closing(made_by_the_first_version(sqlite_house.path)) as connection:
        yield connection


def made_by_the_first_version(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    package = files(sqlite_database.__package__ or "")
    first = package.joinpath("migrations", "0001_jobs.sql").read_text(encoding="utf-8")
    connection.executescript(first)
    connection.executescript(
        f"""
        PRAGMA journal_mode = WAL;
        PRAGMA user_version = 1;
        PRAGMA application_id = {APPLICATION_ID};
        UPDATE sequences SET value = 9 WHERE name = 'lease';
        INSERT INTO processes VALUES (6, 'gone.journal', 1);
        INSERT INTO processes VALUES (7, 'old.journal', {NOW_MS + 30_000});
        INSERT INTO processes VALUES (8, 'newest.journal', 1);
        DELETE FROM processes WHERE id IN (6, 8);
        INSERT INTO limits VALUES ('relay', {NOW_MS * 1000 + 250_000});
        """
    )
    batch(connection, 1, "news", JOBS)
    return connection


def batch(
    connection: sqlite3.Connection,
    batch_id: int,
    name: str,
    jobs: dict[str, Job],
) -> None:
    connection.execute(
        "INSERT INTO batches VALUES (?, ?, 'mail', '{\"subject\":\"Hi\"}', ?, ?, ?)",
        (batch_id, name, CREATED_MS, NOW_MS - 5000, NOW_MS - 1000),
    )
    for state in ("available", "running", "retryable", "completed", "failed", "uncertain"):
        number = sum(job[0] == state for job in jobs.values())
        connection.execute("INSERT INTO counts VALUES (?, ?, ?)", (batch_id, state, number))
    for key, (state, attempt, lease, process_id, run_at_ms, step) in jobs.items():
        cursor = connection.execute(
            "INSERT INTO jobs (batch_id, key, state, attempt, lease, process_id, run_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (batch_id, key, state, attempt, lease, process_id, run_at_ms),
        )
        body = f'{{"to":"{key}","n":1.10}}'
        connection.execute("INSERT INTO payloads VALUES (?, ?)", (cursor.lastrowid, body))
        if step is not None:
            connection.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    cursor.lastrowid, lease if state != "running" else lease - 8, attempt,
                    NOW_MS - 2000, step, f"reason {key}", f"detail {key}",
                ),
            )  # fmt: skip
    connection.execute("INSERT INTO pace VALUES (?, ?, 7)", (batch_id, (NOW_MS - 1000) // 10_000))


async def test_every_job_is_what_it_was(old: sqlite3.Connection, sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    assert sqlite_house.states(1) == {key: JobState(job[0]) for key, job in JOBS.items()}
    assert await counts(store, 1) == {
        JobState.AVAILABLE: 3, JobState.RUNNING: 2, JobState.RETRYABLE: 2,
        JobState.COMPLETED: 1, JobState.FAILED: 1, JobState.UNCERTAIN: 1,
    }  # fmt: skip
    (figures,) = await store.queue_figures()
    assert figures.queue == "batch:1"
    assert some(figures.counts) == await counts(store, 1)
    details = {job_id: await store.detail(job_id) for job_id in range(1, len(JOBS) + 1)}
    for detail, (key, job) in zip(details.values(), JOBS.items(), strict=True):
        assert detail is not None
        state, attempt, _, process_id, run_at_ms, step = job
        assert bytes(detail.payload) == f'{{"to":"{key}","n":1.10}}'.encode()
        row = detail.row
        assert (row.state, row.attempt, row.process_id) == (JobState(state), attempt, process_id)
        assert row.run_at_ms == (run_at_ms or CREATED_MS)
        assert (row.kind, row.queue, row.batch_id) == ("mail", "batch:1", 1)
        assert row.lane == Lane.CAMPAIGN
        final = state in {"completed", "failed", "uncertain"}
        assert row.ended_ms == (NOW_MS - 2000 if final else None)
        waits = state in {"available", "running"}
        assert (row.reason, row.detail) == (
            ("", "") if waits else (f"reason {key}", f"detail {key}")
        )
        assert [tried.step for tried in detail.attempts] == (
            [] if step in {None, "complete"} else [step]
        )


async def test_reports_go_on(old: sqlite3.Connection, sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    (found,) = await store.batches()
    assert (found.id, found.name, bytes(found.spec)) == (1, "news", b'{"subject":"Hi"}')
    assert (found.sealed, found.completed) == (False, False)
    report = await store.report(1)
    assert (report.first_ms, report.last_ms) == (NOW_MS - 5000, NOW_MS - 1000)
    assert report.next_due_ms == NOW_MS + 90_000
    assert report.rate > 0
    assert {reason.reason for reason in await store.reasons(1)} == {
        "reason due", "reason later", "reason refused", "reason silent",
    }  # fmt: skip


async def test_a_half_sent_campaign_is_sent_to_its_end_and_nobody_twice(
    old: sqlite3.Connection, sqlite_house: SqliteHouse
) -> None:
    store = sqlite_house.open()
    again = await store.enqueue(new(*JOBS, "late", batch_id=1, kind="mail"))
    assert [answer.id for answer in again] == list(range(1, len(JOBS) + 2))
    assert [answer.new for answer in again] == [False] * len(JOBS) + [True]
    process_id = await enter(store)
    assert process_id == 9  # 8 was given to one that is gone
    jobs = await claim_of(store, process_id, 100, "batch:1")
    assert keys(sqlite_house, jobs) == {"new", "released", "staged", "due", "late"}
    assert {job.lease for job in jobs} == {10}
    assert all(job.once for job in jobs if job.id <= len(JOBS))
    assert await store.finish(ended(jobs)) == 0
    assert await claim_of(store, process_id, 100, "batch:1") == []
    sqlite_house.clock.move_to(90.0)
    later = await claim_of(store, process_id, 100, "batch:1")
    assert keys(sqlite_house, later) == {"later"}
    assert later[0].attempt == 3


def keys(house: SqliteHouse, jobs: list[ClaimedJob]) -> set[str]:
    names = dict(house.select("SELECT id, json_extract(payload, '$.to') FROM jobs"))
    return {names[job.id] for job in jobs}


async def test_what_the_old_process_held_is_rescued(
    old: sqlite3.Connection, sqlite_house: SqliteHouse
) -> None:
    store = sqlite_house.open()
    process = await process_row(store, 7)
    assert (process.journal, process.expires_ms) == ("old.journal", NOW_MS + 30_000)
    sent = Finished(4, 8, Step.COMPLETE, JobState.COMPLETED, reason="250", at_ms=NOW_MS)
    assert await store.rescue(process, [sent], known=False) == 1
    states = sqlite_house.states(1)
    assert (states["in hand"], states["again in hand"]) == (
        JobState.COMPLETED,
        JobState.UNCERTAIN,
    )


async def test_a_limit_goes_on_from_its_next_slot(
    old: sqlite3.Connection, sqlite_house: SqliteHouse
) -> None:
    store = sqlite_house.open()
    assert await store.limits() == []  # nobody knows its rates yet
    slots = await store.take_slots("relay", RELAY, span_s=0.0)
    assert slots.first_in_s == pytest.approx(0.25, abs=1e-3)
    assert slots.interval_s == schedule_of(RELAY).interval_s
    assert [limit.name for limit in await store.limits()] == ["relay"]
    assert now_ms(sqlite_house) == NOW_MS


async def test_a_migration_that_cannot_end_leaves_the_store_as_it_was(
    old: sqlite3.Connection, sqlite_house: SqliteHouse
) -> None:
    old.execute("CREATE TABLE notes (mine)")  # 0002 makes one of that name, in the middle
    before = list(old.iterdump())
    with pytest.raises(UnavailableError, match="notes already exists"):
        sqlite_house.open()
    assert list(old.iterdump()) == before
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    old.execute("DROP TABLE notes")
    assert len(await sqlite_house.open().batches()) == 1


_STATES = st.sampled_from(["available", "running", "retryable", "completed", "failed", "uncertain"])


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(_STATES, max_size=20), max_size=4))
async def test_the_counts_are_what_counting_gives(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]
) -> None:
    house = SqliteHouse(tmp_path_factory.mktemp("house"), VirtualClock())
    with closing(made_by_the_first_version(house.path)) as connection:
        for batch_id, states in enumerate(batches, start=2):
            jobs: dict[str, Job] = {
                f"k{place}": (state, 1, 1, 7 if state == "running" else None, None, None)
                for place, state in enumerate(states)
            }
            batch(connection, batch_id, f"batch {batch_id}", jobs)
    store = house.open()
    for batch_id, states in enumerate(batches, start=2):
        assert await counts(store, batch_id) == {
            JobState(state): states.count(state) for state in set(states)
        }
        assert sorted(house.states(batch_id).values()) == sorted(states)
    await house.close()
