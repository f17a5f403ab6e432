"""What the SQLite store says when its file, its disk or its neighbours misbehave."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mailrace.queue.stores.sqlite.database as sqlite_database
from mailrace.errors import ConflictError, MisuseError, UnavailableError
from mailrace.queue import JobState, NewJob, Step
from mailrace.queue.flows import Want
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.limits import LimitRow
from mailrace.queue.processes import Vitals
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.stores.sqlite.database import APPLICATION_ID
from tests.queue.houses import SqliteHouse, add, claim_of, counts, ended, enter, fill, new
from tests.support.clock import VirtualClock, settle


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
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    with pytest.raises(UnavailableError, match="attempts already exists"):
        sqlite_house.open()
    assert sqlite_house.select("SELECT name FROM sqlite_master") == [("attempts",)]
    assert sqlite_house.select("PRAGMA user_version") == [(0,)]


def test_the_database_of_another_program_is_left_alone(sqlite_house: SqliteHouse) -> None:
    with closing(sqlite3.connect(sqlite_house.path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = sqlite_house.path.read_bytes()
    with pytest.raises(MisuseError, match="another program"):
        sqlite_house.open()
    assert sqlite_house.path.read_bytes() == before
    assert sqlite_house.select("SELECT name FROM sqlite_master") == [("bookmarks",)]


async def test_a_store_is_opened_again_with_everything_in_it(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 3)
    await store.close()
    assert await counts(sqlite_house.open(), batch_id) == {JobState.AVAILABLE: 3}


async def test_an_id_is_not_used_again_when_the_newest_job_is_deleted(
    sqlite_house: SqliteHouse,
) -> None:
    store = sqlite_house.open()
    (first,) = await add(store, "a")
    await store.finish(ended(await claim_of(store, await enter(store))))
    assert await store.delete(JobFilter()) == 1
    assert await add(store, "b") == [first + 1]


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
    monkeypatch.setattr(sqlite_database, "BUSY_S", 0.02)
    store = sqlite_house.open()
    batch_id = await fill(store, 2)
    process_id = await enter(store)
    queue = f"batch:{batch_id}"
    jobs = await claim_of(store, process_id, 1, queue)
    with locked(sqlite_house.path):
        with pytest.raises(UnavailableError, match="locked") as caught:
            await store.enqueue(new("more", batch_id=batch_id))
        assert "another program" in caught.value.hint
        with pytest.raises(UnavailableError):
            await claim_of(store, process_id, 1, queue)
        with pytest.raises(UnavailableError):
            await store.finish(ended(jobs))
        with pytest.raises(UnavailableError):
            store.renewer(process_id, 30)(Vitals())
        # Reading goes on beside a writer.
        assert await counts(store, batch_id) == {JobState.AVAILABLE: 1, JobState.RUNNING: 1}
        assert len(await store.survey([queue])) == 1
    assert await store.finish(ended(jobs)) == 0
    assert [answer.new for answer in await store.enqueue(new("more", batch_id=batch_id))] == [True]


async def test_a_short_lock_is_waited_for(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(sqlite_house.path):
            held.set()
            let_go.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    store._thread.submit(let_go.set)  # on the store's own thread, right before it has to wait
    assert len(await add(store, "a")) == 1
    other.join()


def test_a_lock_is_asked_for_again_and_again_at_the_same_short_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own waits grow to a tenth of a second: somebody who never rests gets in before."""
    path, waits = tmp_path / "file", []
    with closing(sqlite_database.connect(path)) as one, closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE made (at)")
        other.execute("BEGIN IMMEDIATE")

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 20:
                other.execute("ROLLBACK")

        monkeypatch.setattr(time, "sleep", sleep)
        with sqlite_database.transaction(one):
            one.execute("INSERT INTO made VALUES (1)")
        assert len(waits) == 20
        assert max(waits) <= 0.001
        # What is no wait for the lock keeps SQLite's patience.
        assert one.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY])
def test_whoever_recovers_the_log_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    class Busy:
        tries = 0

        def execute(self, sql: str) -> None:
            if sql == "BEGIN IMMEDIATE" and (tries := self.tries) < 3:
                self.tries = tries + 1
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = code
                raise error

    busy: Any = Busy()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with sqlite_database.transaction(busy):
        assert busy.tries == 3


async def test_a_look_waits_for_no_write(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    await add(store, "a")
    writing, let_go = threading.Event(), threading.Event()

    def write_long() -> None:
        writing.set()
        let_go.wait()

    write = asyncio.ensure_future(store._write(write_long))
    await asyncio.to_thread(writing.wait)
    assert [flow.queue for flow in await store.survey(["*"])] == ["default"]
    assert not write.done()
    let_go.set()
    await write


async def test_a_long_list_does_not_keep_workers_waiting(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    await add(store, "a")
    process_id = await enter(store)
    reading, let_go = threading.Event(), threading.Event()

    def read_long(connection: sqlite3.Connection) -> list[tuple[str]]:
        before = connection.execute("SELECT state FROM jobs").fetchall()
        reading.set()
        let_go.wait()
        assert connection.execute("SELECT state FROM jobs").fetchall() == before
        return before

    list_of_states = asyncio.ensure_future(store._read(read_long))
    await asyncio.to_thread(reading.wait)
    assert await store.finish(ended(await claim_of(store, process_id))) == 0
    let_go.set()
    assert await list_of_states == [("available",)]


def page_limit(store: SqliteStore, more: int) -> None:
    (used,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {used + more}")


async def test_a_full_disk_loses_and_halves_nothing(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 100)
    jobs = await claim_of(store, await enter(store), 50, f"batch:{batch_id}")
    before = await store.report(batch_id)
    page_limit(store, 2)
    with pytest.raises(UnavailableError, match="full") as caught:
        await store.enqueue(
            [
                NewJob(kind="kind", payload=msgspec.Raw(b'"%s"' % (b"x" * 1000)), batch_id=batch_id)
                for _ in range(200)
            ]
        )
    assert "free some space" in caught.value.hint
    with pytest.raises(UnavailableError, match="full"):
        await store.finish(ended(jobs, Step.FAIL, detail="y" * 1000))
    assert await store.report(batch_id) == before
    assert len(sqlite_house.states(batch_id)) == 100
    assert sqlite_house.attempts(batch_id) == []
    page_limit(store, 1000)
    assert await store.finish(ended(jobs, Step.FAIL, detail="y" * 1000)) == 0
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 50, JobState.FAILED: 50}


async def test_a_step_that_breaks_the_ledger_is_refused_whole(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    batch_id = await fill(store, 2)
    with closing(sqlite3.connect(sqlite_house.path, isolation_level=None)) as other:
        other.execute("UPDATE counts SET jobs = 1 WHERE state = 'available'")
    process_id = await enter(store)
    with pytest.raises(ConflictError, match="refused a step"):
        await claim_of(store, process_id, 2, f"batch:{batch_id}")
    assert set(sqlite_house.states(batch_id).values()) == {JobState.AVAILABLE}


@pytest.mark.parametrize("payload", [b"{broken", b"", b'1],[null,null,"two"'])
async def test_what_is_no_json_value_is_refused_whole(
    sqlite_house: SqliteHouse, payload: bytes
) -> None:
    store = sqlite_house.open()
    job = NewJob(kind="kind", payload=msgspec.Raw(payload))
    with pytest.raises(MisuseError, match=r"not one JSON value|out of range"):
        await store.enqueue([*new("a"), job])
    assert sqlite_house.everything() == {}
    assert await store.queue_figures() == []


async def test_asking_for_nothing_writes_nothing(sqlite_house: SqliteHouse) -> None:
    """An idle process asks often: no commit, no sync."""
    store = sqlite_house.open()
    await fill(store, 0)
    process_id = await enter(store)
    assert await store.take_turn("upkeep", 60)
    log = sqlite_house.path.with_name("jobs.db-wal")
    size_bytes = log.stat().st_size
    for _ in range(20):
        assert await claim_of(store, process_id) == []
        assert await store.survey(["*"]) == []
        assert await store.expire() == 0
        assert not await store.take_turn("upkeep", 60)
    assert log.stat().st_size == size_bytes


async def test_jobs_in_many_flows_come_in_the_order_of_a_simple_search(
    sqlite_house: SqliteHouse,
) -> None:
    """The two ways in: alike in runs, and all different."""
    store = sqlite_house.open()
    jobs = [
        new(f"{tenant}{number}", tenant=tenant, run_at_ms=number * 7 % 5, key=f"k{number}")[0]
        for number in range(60)
        for tenant in ("a", "b")
    ]
    await store.enqueue(jobs)
    await store.enqueue(sorted(jobs, key=lambda job: job.tenant))
    process_id = await enter(store)
    for tenant in ("a", "b"):
        found = sqlite_house.select(
            "SELECT id FROM jobs WHERE tenant = ? ORDER BY run_at_ms, id", tenant
        )
        claimed = await store.claim(process_id, [Want("default", tenant, 0, 500)])
        assert [(job.id,) for job in claimed] == found
        assert len(found) == 120


# Blocked jobs


async def test_a_blocked_job_is_not_forgotten_when_the_one_let_in_is_cancelled(
    sqlite_house: SqliteHouse,
) -> None:
    store = sqlite_house.open()
    await gate(store)
    first, second, third = await add(store, "a", "b", "c", key="k")
    process_id = await enter(store)
    running = await claim_of(store, process_id)
    assert [job.id for job in running] == [first]
    assert sqlite_house.select("SELECT id FROM jobs WHERE blocked") == [(second,), (third,)]
    await store.finish(ended(running))
    assert await store.cancel(JobFilter(ids=(second,))) == 1
    assert [job.id for job in await claim_of(store, process_id)] == [third]


async def test_tidying_lets_in_what_nobody_holds_up(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    await gate(store)
    await add(store, "a", key="k")
    with closing(sqlite3.connect(sqlite_house.path, isolation_level=None)) as other:
        other.execute("UPDATE jobs SET blocked = 1")
    process_id = await enter(store)
    assert await claim_of(store, process_id) == []
    await store.tidy()
    assert len(await claim_of(store, process_id)) == 1


async def gate(store: SqliteStore) -> None:
    await store.set_queue(QueueRules(name="default", concurrency_per_key=1))


# Limits


async def test_a_clock_that_is_set_back_takes_the_slots_with_it(sqlite_house: SqliteHouse) -> None:
    store = sqlite_house.open()
    limit = LimitRow(name="relay", rates="10/s")
    first = await store.take_slots("relay", limit, span_s=1.0)
    sqlite_house.clock.set_back(1000.0)
    second = await store.take_slots("relay", None, span_s=1.0)
    taken_s = first.slots * first.interval_s
    assert second.first_in_s == pytest.approx(taken_s, abs=1e-3)


async def test_what_was_taken_by_a_clock_far_ahead_holds_nobody_up(
    sqlite_house: SqliteHouse,
) -> None:
    store = sqlite_house.open()
    far_ms = sqlite_house.clock.unix_s() * 1000 + 10**9
    await store.set_limit(LimitRow(name="relay", rates="10/s", next_slot_ms=far_ms))
    assert (await store.take_slots("relay", None, span_s=1.0)).first_in_s == 0.0


# Wake-ups


@pytest.fixture
async def clock(sqlite_house: SqliteHouse) -> VirtualClock:
    sqlite_house.clock = VirtualClock(auto=True)
    return sqlite_house.clock


async def next_within(wakeups: AsyncIterator[None], clock: VirtualClock, seconds: float) -> bool:
    """Whether one comes in so long; if not, the iterator is at its end."""
    waiting = asyncio.ensure_future(anext(wakeups))
    alarm = clock.call_at_s(clock.monotonic_s() + seconds, waiting.cancel)
    try:
        await waiting
    except asyncio.CancelledError:
        return False
    finally:
        alarm.cancel()
    return True


async def test_own_jobs_wake_at_once(sqlite_house: SqliteHouse, clock: VirtualClock) -> None:
    store = sqlite_house.open()
    waiting = asyncio.ensure_future(anext(store.wakeups(["default"])))
    await settle()
    since_s = clock.monotonic_s()
    await add(store, "a")
    await waiting
    assert clock.monotonic_s() - since_s <= 0.05
    assert store.listening


async def test_jobs_of_another_process_wake_within_a_twentieth_of_a_second(
    sqlite_house: SqliteHouse, clock: VirtualClock
) -> None:
    store, other = sqlite_house.open(), sqlite_house.open()
    wakeups = store.wakeups(["default"])
    waiting = asyncio.ensure_future(anext(wakeups))
    await clock.sleep_s(0.2)
    assert not waiting.done()
    await add(other, "a")
    since_s = clock.monotonic_s()
    await waiting
    assert clock.monotonic_s() - since_s <= 0.051
    assert not await next_within(wakeups, clock, 1.0)


async def test_other_queues_and_the_steps_of_workers_wake_nobody(
    sqlite_house: SqliteHouse, clock: VirtualClock
) -> None:
    store, other = sqlite_house.open(), sqlite_house.open()
    await add(other, "a", "b")
    wakeups = store.wakeups(["default"])
    waiting = asyncio.ensure_future(anext(wakeups))
    await clock.sleep_s(0.2)
    await add(other, "c", queue="elsewhere")
    await other.finish(ended(await claim_of(other, await enter(other))))
    await clock.sleep_s(0.2)
    assert not waiting.done()
    await store.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_what_comes_within_a_tick_of_the_file_s_time_wakes_as_soon(
    sqlite_house: SqliteHouse, clock: VirtualClock
) -> None:
    store, other = sqlite_house.open(), sqlite_house.open()
    log = sqlite_house.path.with_name(f"{sqlite_house.path.name}-wal")
    wakeups = store.wakeups(["default"])
    waiting = asyncio.ensure_future(anext(wakeups))
    await clock.sleep_s(0.2)
    await add(other, "a")
    await waiting
    same = log.stat().st_mtime_ns
    await add(other, "b")
    os.utime(log, ns=(same, same))
    since_s = clock.monotonic_s()
    await anext(wakeups)
    assert clock.monotonic_s() - since_s <= 0.02


async def test_what_the_file_s_time_does_not_tell_wakes_within_a_twentieth_of_a_second(
    sqlite_house: SqliteHouse, clock: VirtualClock
) -> None:
    store, other = sqlite_house.open(), sqlite_house.open()
    log = sqlite_house.path.with_name(f"{sqlite_house.path.name}-wal")
    waiting = asyncio.ensure_future(anext(store.wakeups(["default"])))
    await clock.sleep_s(0.2)
    before_ns = log.stat().st_mtime_ns
    await add(other, "a")
    os.utime(log, ns=(before_ns, before_ns))
    since_s = clock.monotonic_s()
    await waiting
    assert clock.monotonic_s() - since_s <= 0.061


async def test_what_takes_long_to_reach_the_disk_wakes_when_it_is_there(
    sqlite_house: SqliteHouse, clock: VirtualClock
) -> None:
    """The log has its time from the write, and others see what was written after the sync."""
    store, other = sqlite_house.open(), sqlite_house.open()
    log = sqlite_house.path.with_name(f"{sqlite_house.path.name}-wal")
    await add(other, "a")
    wakeups = store.wakeups(["default"])
    waiting = asyncio.ensure_future(anext(wakeups))
    await clock.sleep_s(10)  # long enough for rare looks
    now_ns = log.stat().st_mtime_ns
    os.utime(log, ns=(now_ns + 1, now_ns + 1))
    await clock.sleep_s(0.21)
    await add(other, "b")
    os.utime(log, ns=(now_ns + 1, now_ns + 1))
    since_s = clock.monotonic_s()
    await waiting
    assert clock.monotonic_s() - since_s <= 0.03
