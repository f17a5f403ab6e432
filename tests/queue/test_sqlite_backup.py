"""Copies of a store on SQLite, and their way back."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from mailrace.errors import MisuseError, UnavailableError
from mailrace.queue import JobState
from mailrace.queue.stores.sqlite.backup import backup, restore
from mailrace.queue.stores.sqlite.database import APPLICATION_ID
from tests.queue.houses import (
    SqliteHouse,
    add,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    process_row,
    queue_counts,
)
from tests.support.clock import VirtualClock


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


def elsewhere(tmp_path: Path) -> SqliteHouse:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return SqliteHouse(folder, VirtualClock())


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes | bytearray) -> None:
    path.write_bytes(content)


async def test_a_copy_is_restored_with_everything_in_it(
    sqlite_house: SqliteHouse, tmp_path: Path, copy: Path
) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 50)
    await store.finish(ended(await claim_of(store, await enter(store), 20, f"batch:{batch_id}")))
    backup(sqlite_house.path, copy)
    await add(store, "after the copy")
    house = elsewhere(tmp_path)
    restore(copy, house.path)
    restored = house.open()
    assert await counts(restored, batch_id) == {JobState.AVAILABLE: 30, JobState.COMPLETED: 20}
    assert await queue_counts(restored) == {}
    assert sorted(path.name for path in house.path.parent.glob("*.partial*")) == []
    await house.close()


async def test_what_was_in_hand_is_rescued_where_the_copy_is_restored(
    sqlite_house: SqliteHouse, tmp_path: Path, copy: Path
) -> None:
    store = sqlite_house.open()
    await add(store, "a")
    process_id = await enter(store)
    old = await claim_of(store, process_id)
    backup(sqlite_house.path, copy)
    house = elsewhere(tmp_path)
    restore(copy, house.path)
    restored = house.open()
    assert await restored.rescue(await process_row(restored, process_id), [], known=False) == 1
    assert await queue_counts(restored) == {JobState.AVAILABLE: 1}
    assert await enter(restored) > process_id
    assert await restored.finish(ended(old)) == 1  # a zombie of the first machine
    await house.close()


async def test_a_copy_made_while_others_write_is_of_one_moment(
    sqlite_house: SqliteHouse, copy: Path
) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 3000)
    process_id = await enter(store)
    copied = threading.Event()

    def copy_all() -> None:
        for number in range(3):
            backup(sqlite_house.path, copy.with_name(f"copy{number}.db"))
        copied.set()

    copying = asyncio.ensure_future(asyncio.to_thread(copy_all))
    while not copied.is_set() and (
        jobs := await claim_of(store, process_id, 10, f"batch:{batch_id}")
    ):
        await store.finish(ended(jobs))
    await copying
    for number in range(3):
        with closing(sqlite3.connect(copy.with_name(f"copy{number}.db"))) as connection:
            counted = connection.execute("SELECT state, count(*) FROM jobs GROUP BY 1 ORDER BY 1")
            kept = connection.execute(
                "SELECT state, sum(jobs) FROM counts WHERE jobs > 0 GROUP BY 1 ORDER BY 1"
            )
            assert counted.fetchall() == kept.fetchall()


async def test_nothing_that_is_there_is_overwritten(
    sqlite_house: SqliteHouse, tmp_path: Path, copy: Path
) -> None:
    await add(sqlite_house.open(), "a")
    write(copy, b"last week's")
    with pytest.raises(MisuseError, match="there already") as caught:
        backup(sqlite_house.path, copy)
    assert str(copy) in caught.value.problem
    assert read(copy) == b"last week's"
    copy = tmp_path / "another.db"
    backup(sqlite_house.path, copy)
    house = elsewhere(tmp_path)
    await add(house.open(), "b", "c")
    with pytest.raises(MisuseError, match="there already"):
        restore(copy, house.path)
    assert len(house.everything()) == 2
    await house.close()


async def test_an_empty_file_is_no_store_yet(
    sqlite_house: SqliteHouse, tmp_path: Path, copy: Path
) -> None:
    await add(sqlite_house.open(), "a")
    backup(sqlite_house.path, copy)
    house = elsewhere(tmp_path)
    house.path.touch()
    restore(copy, house.path)
    assert len(house.everything()) == 1


def test_what_is_not_there_is_not_copied(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(MisuseError, match="there is no store"):
        backup(tmp_path / "missing.db", copy)
    with pytest.raises(MisuseError, match="there is no file"):
        restore(tmp_path / "missing.db", copy)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("both_ways", [backup, restore])
def test_what_is_no_store_is_not_copied(tmp_path: Path, both_ways: object, copy: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    text = tmp_path / "people.csv"
    text.write_bytes(b"name,email\n" * 500)
    for path in (other, text):
        before = path.read_bytes()
        with pytest.raises(MisuseError):
            (backup if both_ways is backup else restore)(path, copy)
        assert path.read_bytes() == before
        assert not copy.exists()


def test_a_copy_of_a_newer_version_is_refused(tmp_path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(MisuseError, match="newer version"):
        restore(copy, tmp_path / "jobs.db")


async def test_a_damaged_copy_is_refused(
    sqlite_house: SqliteHouse, tmp_path: Path, copy: Path
) -> None:
    store = sqlite_house.open()
    await fill(store, 500)
    backup(sqlite_house.path, copy)
    content = bytearray(read(copy))
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    write(copy, content)
    house = elsewhere(tmp_path)
    with pytest.raises((MisuseError, UnavailableError)):
        restore(copy, house.path)
    assert list(house.path.parent.iterdir()) == []


async def test_a_copy_is_one_file_without_a_log(sqlite_house: SqliteHouse, copy: Path) -> None:
    await add(sqlite_house.open(), "a")
    backup(sqlite_house.path, copy)
    assert [path.name for path in copy.parent.glob("copy.db*")] == ["copy.db"]
