"""The tables of the PostgreSQL store: how they are made and upgraded, and what code fits them."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import msgspec
import psycopg
import pytest

from mailrace.errors import MisuseError
from mailrace.queue.flows import Want
from mailrace.queue.jobs import NewJob
from mailrace.queue.processes import NewProcess
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.migrate import migrate, migrations, prepare

ALL = [migration.name for migration in migrations()]


def run(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_postgres_migrations_are_numbered_without_gaps() -> None:
    numbers = [migration.number for migration in migrations()]
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))


def test_every_postgres_migration_declares_whose_code_may_go_on() -> None:
    for migration in migrations():
        assert "\n-- oldest code: " in migration.script
        assert 1 <= migration.oldest_code <= migration.number


def test_postgres_migrations_are_run_once(postgres_dsn: str) -> None:
    assert migrate(postgres_dsn) == ALL
    assert migrate(postgres_dsn) == []


def test_of_several_who_migrate_a_postgres_at_once_one_does(postgres_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(migrate, [postgres_dsn] * 4))
    assert sorted(done, key=len) == [[], [], [], ALL]


def test_a_migration_of_postgres_that_fails_leaves_nothing(postgres_dsn: str) -> None:
    migrate(postgres_dsn, up_to=1)
    run(postgres_dsn, "CREATE FUNCTION mailrace.unix_ms(moment timestamptz) RETURNS bigint"
        " LANGUAGE sql AS 'SELECT 1::bigint'")  # fmt: skip
    with pytest.raises(MisuseError, match="already exists"):
        migrate(postgres_dsn)
    run(postgres_dsn, "DROP FUNCTION mailrace.unix_ms")
    assert migrate(postgres_dsn) == ALL[1:]


async def test_jobs_of_an_older_postgres_store_are_there_after_its_upgrade(
    postgres_dsn: str,
) -> None:
    migrate(postgres_dsn, up_to=1)
    run(postgres_dsn, "INSERT INTO mailrace.jobs (kind, payload) VALUES ('kind', '\"old\"')")
    with pytest.raises(MisuseError, match="run mailrace migrate"):
        await PostgresStore.open(postgres_dsn)
    migrate(postgres_dsn)
    store = await PostgresStore.open(postgres_dsn)
    process_id = await store.register(NewProcess(journal="journal"), 30.0)
    (job,) = await store.claim(process_id, [Want("default", "", 0, 10)])
    assert job.payload == msgspec.Raw(b'"old"')
    await store.close()


async def test_the_first_to_open_an_empty_postgres_makes_the_tables(postgres_dsn: str) -> None:
    store = await PostgresStore.open(postgres_dsn)
    await store.enqueue([NewJob(kind="kind", payload=msgspec.Raw(b"{}"))])
    await store.close()
    assert migrate(postgres_dsn) == []


def test_a_postgres_schema_of_that_name_that_is_not_ours_is_left_alone(postgres_dsn: str) -> None:
    run(postgres_dsn, "CREATE SCHEMA mailrace; CREATE TABLE mailrace.theirs (id integer)")
    with pytest.raises(MisuseError, match="no tables yet"):
        prepare(postgres_dsn)


def newer(dsn: str, oldest_code: int) -> None:
    migrate(dsn)
    run(dsn, f"INSERT INTO mailrace.migrations VALUES (99, '0099_later', {oldest_code})")


def test_old_code_goes_on_where_a_newer_postgres_schema_lets_it(postgres_dsn: str) -> None:
    newer(postgres_dsn, oldest_code=len(ALL))
    prepare(postgres_dsn)
    assert migrate(postgres_dsn) == []


def test_old_code_stops_where_a_newer_postgres_schema_needs_newer_code(postgres_dsn: str) -> None:
    newer(postgres_dsn, oldest_code=99)
    with pytest.raises(MisuseError, match="upgrade Mailrace here too"):
        prepare(postgres_dsn)
