"""What the SQLite store says when its file, its disk or its neighbours misbehave."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

import mailrace.queue.stores.sqlite.database as sqlite_database
from mailrace.errors import ConflictError, MisuseError, UnavailableError
from mailrace.queue import JobState, NewJob, Step
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.stores.sqlite.database import _APPLICATION_ID
from tests.queue.houses import SqliteHouse, counts, ended, fill, new


def test_a_file_that_is_no_database_is_left_alone(sqlite_house: SqliteHouse) -> None:
    content = b"name,email\nAnn,ann@example.com\n" * 100
    sqlite_house.path.write_bytes(content)
    with pytest.raises(MisuseError, match="cannot be used as a store") as caught:
        sqlite_house.open()
    assert str(sqlite_house.path) in caught.value.problem
    assert caught.value.hint
    assert sqlite_house.path.read_bytes() == content


@pytest.mark.parametrize("folder", ["/proc", "missing", "file"])
def test_a_folder_that_cannot_be_written_is_misuse(
    sqlite_house: SqliteHouse, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    sqlite_house.path = tmp_path / folder / "jobs.db"
    with pytest.raises(MisuseError, match="cannot be written") as caught:
        sqlite_house.open()
    assert "folder" in caught.value.hint


def test_a_newer_schema_is_not_touched(sqlite_house: SqliteHouse) -> None:
    with closing(sqlite3.connect(sqlite_house.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(MisuseError, match="newer version"):
        sqlite_house.open()
    assert sqlite_house.select("SELECT name FROM sqlite_master") == []


def test_a_migration_that_fails_leaves_nothing(sqlite_house: SqliteHouse) -> None:
    with closing(sqlite3.connect(sqlite_house.path)) as connection:
        connection.execute("CREATE TABLE attempts (mine)")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    with pytest.raises(UnavailableError, match="attempts already exists"):
        sqlite_house.open()
    assert sqlite_house.select("SELECT name FROM sqlite_master") == [("attempts",)]
    assert sqlite_house.select("PRAGMA user_version") == [(0,)]


def test_the_database_of_another_program_is_left_alone(sqlite_house: SqliteHouse) -> None:
    with closing(sqlite3.connect(sqlite_house.path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(MisuseError, match="another program"):
        sqlite_house.open()
    assert sqlite_house.select("SELECT name FROM sqlite_master") == [("bookmarks",)]


async def test_a_store_is_opened_again_with_everything_in_it(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 3)
    await store.close()
    assert await counts(sqlite_house.open(), batch_id) == {JobState.AVAILABLE: 3}


async def test_commits_are_synced(sqlite_house: SqliteHouse) -> None:
    connection = sqlite_house.open()._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_file_locked_for_long_is_unavailable(
    sqlite_house: SqliteHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "_BUSY_S", 0.02)
    store = sqlite_house.open()
    batch_id = await fill(store, 2)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 1)
    with locked(sqlite_house.path):
        with pytest.raises(UnavailableError, match="locked") as caught:
            await store.enqueue(batch_id, new("more"))
        assert "another program" in caught.value.hint
        with pytest.raises(UnavailableError):
            await store.claim(process_id, batch_id, 1)
        with pytest.raises(UnavailableError):
            await store.finish(ended(jobs))
        with pytest.raises(UnavailableError):
            store.renewer(process_id, 30)()
        # Reading goes on beside a writer.
        assert await counts(store, batch_id) == {JobState.AVAILABLE: 1, JobState.RUNNING: 1}
    assert await store.finish(ended(jobs)) == 0
    assert await store.enqueue(batch_id, new("more")) == 1


async def test_a_short_lock_is_waited_for(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 0)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(sqlite_house.path):
            held.set()
            let_go.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    store._thread.submit(let_go.set)  # on the store's own thread, right before it has to wait
    assert await store.enqueue(batch_id, new("a")) == 1
    other.join()


def page_limit(store: SqliteStore, more: int) -> None:
    (used,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {used + more}")


async def test_a_full_disk_loses_and_halves_nothing(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 100)
    process_id = await store.register("j", 30)
    jobs = await store.claim(process_id, batch_id, 50)
    before = await store.report(batch_id)
    page_limit(store, 2)
    large = msgspec.Raw(msgspec.json.encode("x" * 1000))
    with pytest.raises(UnavailableError, match="full") as caught:
        await store.enqueue(batch_id, [NewJob(f"n{number}", large) for number in range(200)])
    assert "free some space" in caught.value.hint
    with pytest.raises(UnavailableError, match="full"):
        await store.finish(ended(jobs, Step.FAIL, detail="y" * 1000))
    assert await store.report(batch_id) == before
    assert len(sqlite_house.states(batch_id)) == 100
    assert sqlite_house.select("SELECT count(*) FROM payloads") == [(100,)]
    assert sqlite_house.attempts(batch_id) == []
    page_limit(store, 1000)
    assert await store.finish(ended(jobs, Step.FAIL, detail="y" * 1000)) == 0
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 50, JobState.FAILED: 50}


async def test_a_step_that_breaks_the_ledger_is_refused_whole(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 2)
    with closing(sqlite3.connect(sqlite_house.path, isolation_level=None)) as other:
        other.execute("UPDATE counts SET jobs = 1 WHERE state = 'available'")
    process_id = await store.register("j", 30)
    with pytest.raises(ConflictError, match="refused a step"):
        await store.claim(process_id, batch_id, 2)
    assert set(sqlite_house.states(batch_id).values()) == {JobState.AVAILABLE}


async def test_asking_for_nothing_writes_nothing(sqlite_house: SqliteHouse) -> None:
    """An idle process asks often: no commit, no sync."""
    store = sqlite_house.open()
    batch_id = await fill(store, 0)
    process_id = await store.register("j", 30)
    log = sqlite_house.path.with_name("jobs.db-wal")
    size_bytes = log.stat().st_size
    for _ in range(20):
        assert await store.claim(process_id, batch_id, 10) == []
    assert log.stat().st_size == size_bytes
