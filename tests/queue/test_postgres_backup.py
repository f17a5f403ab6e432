"""One file with all that a PostgreSQL store holds: what goes in comes out, or nothing does."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from mailrace.errors import ConflictError, MailraceError, MisuseError
from mailrace.queue import JobState, NewJob, Step
from mailrace.queue.commands import Action, Answer, NewCommand
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.limits import LimitRow
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.schedules import ScheduleRow
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.backup import backup, restore
from mailrace.queue.stores.postgres.migrate import migrate
from tests.queue.houses import add, claim_of, ended, enter, fill, new, queue_counts
from tests.support.postgres import Databases

Rows = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def other_dsn(postgres_databases: Databases) -> Iterator[str]:
    with postgres_databases.fresh_database() as dsn:
        yield dsn


async def populate(dsn: str) -> None:
    """Leaves something in every table."""
    store = PostgresStore(dsn)
    await store.tidy()
    batch_id = await fill(store, 3)
    await add(store, "live", "é\t\\N\n'", tags=("x", "y"), unique="u", key=None)
    await store.set_queue(QueueRules(name="gated", concurrency=2, concurrency_per_key=1))
    await add(store, "a", "b", queue="gated", key="k")
    process_id = await enter(store)
    await claim_of(store, process_id, queue="gated")
    for step in (Step.COMPLETE, Step.FAIL, Step.RETRY):
        jobs = await claim_of(store, process_id, 1, queue=f"batch:{batch_id}")
        await store.finish(ended(jobs, step))
    await store.set_limit(LimitRow(name="relay", rates="10/s"))
    (job,) = new("x", queue="later")
    await store.put_schedule(
        ScheduleRow(name="daily", cron="@every 5m", zone="UTC", catch_up="one", job=job)
    )
    assert await store.fire("daily", 1_800_000_000_000)
    command = await store.command(NewCommand(action=Action.PAUSE))
    await store.answer(Answer(command_id=command, by="process:1", done=True, text="paused"))
    await store.take_turn("tidy", 10.0)
    await store.note("note", b'{"a": 1}')
    await store.tidy()
    await add(store, "untidied")
    await store.close()


def everything(dsn: str) -> Rows:
    """All rows of all tables, but for when the leases end."""
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT c.relname::text FROM pg_class AS c WHERE relkind IN ('r', 'p')"
            " AND relnamespace = 'mailrace'::regnamespace AND NOT relispartition"
        ).fetchall()
        return {
            name: sorted(
                connection.execute(
                    sql.SQL("SELECT (to_jsonb(t) - 'expires_at' - 'applied_at')::text FROM {} t")
                    .format(sql.Identifier("mailrace", name))
                ).fetchall()
            )
            for (name,) in tables
        }  # fmt: skip


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def migrated(dsn: str) -> Rows:
    migrate(dsn)
    return everything(dsn)


async def test_what_goes_in_comes_out(postgres_dsn: str, other_dsn: str, tmp_path: Path) -> None:
    migrate(postgres_dsn)
    await populate(postgres_dsn)
    before = everything(postgres_dsn)
    assert all(before.values()), [name for name, rows in before.items() if not rows]
    made = backup(postgres_dsn, tmp_path / "store.backup")
    assert {table.name: table.rows for table in made.tables} == {
        name: len(rows) for name, rows in before.items() if name != "migrations"
    }
    assert everything(postgres_dsn) == before
    assert names(tmp_path) == ["store.backup"]
    assert restore(other_dsn, tmp_path / "store.backup") == made
    assert everything(other_dsn) == before
    with psycopg.connect(other_dsn) as connection:
        resting = connection.execute("SELECT count(*) FROM mailrace.jobs_completed_rest")
        assert resting.fetchall() == [(0,)], "completed jobs lie in the partitions of their days"


async def test_a_restored_store_goes_on_without_a_number_given_twice(
    postgres_dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    migrate(postgres_dsn)
    await populate(postgres_dsn)
    backup(postgres_dsn, tmp_path / "store.backup")
    store = PostgresStore(postgres_dsn)
    later = await add(store, *map(str, range(100)), queue="new")
    their_id = await enter(store)
    leases = [job.lease for job in await claim_of(store, their_id, queue="new")]
    await store.close()
    restore(other_dsn, tmp_path / "store.backup")
    other = PostgresStore(other_dsn)
    (job_id,) = await add(other, "x", queue="new")
    assert job_id > max(later)
    process_id = await enter(other)
    assert process_id > their_id
    (job,) = await claim_of(other, process_id, queue="new")
    assert job.lease > max(leases)
    await other.close()


async def test_what_ran_when_the_backup_was_made_is_rescued(
    postgres_dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    migrate(postgres_dsn)
    await populate(postgres_dsn)
    backup(postgres_dsn, tmp_path / "store.backup")
    restore(other_dsn, tmp_path / "store.backup")
    store = PostgresStore(other_dsn)
    (process,) = await store.processes()
    assert process.expired
    assert await store.rescue(process, [], known=False) == 1
    assert await store.find(JobFilter(states=(JobState.RUNNING,))) == []
    assert await queue_counts(store, "gated") == {JobState.AVAILABLE: 2}
    await store.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
async def test_a_file_that_is_cut_changes_nothing(
    postgres_dsn: str, other_dsn: str, tmp_path: Path, share: float
) -> None:
    migrate(postgres_dsn)
    await populate(postgres_dsn)
    backup(postgres_dsn, tmp_path / "store.backup")
    whole = (tmp_path / "store.backup").read_bytes()
    (tmp_path / "cut.backup").write_bytes(whole[: int(len(whole) * share)])
    before = migrated(other_dsn)
    with pytest.raises(MisuseError, match="no backup"):
        restore(other_dsn, tmp_path / "cut.backup")
    assert everything(other_dsn) == before


async def test_a_file_that_is_damaged_changes_nothing(
    postgres_dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    migrate(postgres_dsn)
    await populate(postgres_dsn)
    path = tmp_path / "store.backup"
    backup(postgres_dsn, path)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("jobs.copy").header_offset
    data = bytearray(path.read_bytes())
    data[start + 80 : start + 90] = b"0123456789"
    path.write_bytes(data)
    before = migrated(other_dsn)
    with pytest.raises(MailraceError):
        restore(other_dsn, path)
    assert everything(other_dsn) == before


async def test_a_table_with_other_rows_than_it_says_changes_nothing(
    postgres_dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    migrate(postgres_dsn)
    await populate(postgres_dsn)
    backup(postgres_dsn, tmp_path / "store.backup")
    with (
        zipfile.ZipFile(tmp_path / "store.backup") as whole,
        zipfile.ZipFile(tmp_path / "less.backup", "w") as less,
    ):
        for name in whole.namelist():
            less.writestr(name, b"" if name == "turns.copy" else whole.read(name))
    before = migrated(other_dsn)
    with pytest.raises(MisuseError, match="turns"):
        restore(other_dsn, tmp_path / "less.backup")
    assert everything(other_dsn) == before


def test_another_programs_file_changes_nothing(postgres_dsn: str, tmp_path: Path) -> None:
    before = migrated(postgres_dsn)
    (tmp_path / "text").write_text("hello")
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("manifest.json", '{"mailrace": "no"}')
    for name in ("text", "archive", "missing"):
        with pytest.raises(MisuseError, match="no backup"):
            restore(postgres_dsn, tmp_path / name)
    assert everything(postgres_dsn) == before


async def test_a_store_with_something_in_it_is_left_alone(
    postgres_dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    migrate(postgres_dsn)
    migrate(other_dsn)
    backup(postgres_dsn, tmp_path / "empty.backup")
    store = PostgresStore(other_dsn)
    await store.enqueue([NewJob(kind="k", payload=new("x")[0].payload)])
    await store.close()
    before = everything(other_dsn)
    with pytest.raises(ConflictError, match="something"):
        restore(other_dsn, tmp_path / "empty.backup")
    assert everything(other_dsn) == before


def test_a_file_that_is_there_is_not_overwritten(postgres_dsn: str, tmp_path: Path) -> None:
    migrate(postgres_dsn)
    (tmp_path / "store.backup").write_text("precious")
    with pytest.raises(ConflictError, match="already"):
        backup(postgres_dsn, tmp_path / "store.backup")
    assert (tmp_path / "store.backup").read_text() == "precious"
    with pytest.raises(MisuseError, match="cannot be written"):
        backup(postgres_dsn, tmp_path / "nowhere" / "store.backup")


def test_a_database_without_a_store_has_no_backup(postgres_dsn: str, tmp_path: Path) -> None:
    with pytest.raises(MisuseError):
        backup(postgres_dsn, tmp_path / "store.backup")
    assert list(tmp_path.iterdir()) == []
