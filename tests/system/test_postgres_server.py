"""The private PostgreSQL that tests run on: it starts, keeps its data and leaves nothing."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.support import pgbouncer
from tests.support.postgres import (
    Databases,
    GivenServer,
    PostgresServer,
    available,
    debian_programs,
    wheel_programs,
)

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))
needs_pgbouncer = pytest.mark.skipif(
    pgbouncer.available() is not None, reason=str(pgbouncer.available())
)
ROOT = Path(__file__).resolve().parents[2]

# Starts a server, says where, and waits to be killed.
HOLDER = """
import sys
import time
from tests.support.postgres import PostgresServer
with PostgresServer(fsync=False) as server:
    print(server.pid, server.folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
def dsn(server: PostgresServer) -> Iterator[str]:
    with server.fresh_database() as dsn:
        yield dsn


def put(dsn: str, value: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def kept(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept")]


def show(dsn: str, setting: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
        assert row is not None
        return str(row[0])


def names(server: Databases) -> set[str]:
    with psycopg.connect(server.dsn()) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}


def test_two_databases_are_separate(server: PostgresServer) -> None:
    with server.fresh_database() as one, server.fresh_database() as other:
        put(one, "here")
        put(other, "there")
        assert kept(one) == ["here"]
        assert kept(other) == ["there"]


def test_a_fresh_database_is_dropped_with_whoever_is_connected(server: PostgresServer) -> None:
    before = names(server)
    with server.fresh_database() as dsn:
        lingering = psycopg.connect(dsn)
        assert len(names(server) - before) == 1
    assert names(server) == before
    with pytest.raises(psycopg.OperationalError):
        lingering.execute("SELECT 1")
    lingering.close()


def test_a_database_is_made_from_a_template(server: PostgresServer, dsn: str) -> None:
    put(dsn, "from the template")
    template = dsn.rpartition("/")[2]
    server.create_database("copied", template)
    try:
        assert kept(server.dsn("copied")) == ["from the template"]
    finally:
        server.drop_database("copied")


def test_a_restart_keeps_the_data_and_the_address(server: PostgresServer, dsn: str) -> None:
    put(dsn, "before")
    before = server.pid
    server.restart()
    assert server.pid not in {before, None}
    assert kept(dsn) == ["before"]


def test_what_was_committed_is_there_after_a_kill(server: PostgresServer, dsn: str) -> None:
    put(dsn, "committed")
    written = len(server.log.read_text())
    with closing(psycopg.connect(dsn)) as undecided:
        undecided.execute("INSERT INTO kept VALUES ('not committed')")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            undecided.execute("SELECT 1")
    assert server.pid is None
    server.start()
    assert kept(dsn) == ["committed"]
    assert "not properly shut down" in server.log.read_text()[written:]


def test_starting_a_running_server_changes_nothing(server: PostgresServer) -> None:
    before = server.pid
    server.start()
    assert server.pid == before


def test_a_fresh_database_starts_a_server_that_is_down(server: PostgresServer) -> None:
    server.stop()
    with server.fresh_database() as dsn:
        put(dsn, "up")
        server.kill()
    assert server.pid is not None


def test_the_unix_socket_leads_to_the_same_database(server: PostgresServer, dsn: str) -> None:
    put(dsn, "over TCP")
    assert kept(server.dsn(dsn.rpartition("/")[2], socket=True)) == ["over TCP"]


def test_locale_encoding_and_zone_are_those_of_no_machine(server: PostgresServer) -> None:
    dsn = server.dsn()
    assert show(dsn, "server_encoding") == "UTF8"
    assert show(dsn, "lc_messages") == "C"
    assert show(dsn, "TimeZone") == "UTC"


def test_settings_are_the_callers(server: PostgresServer) -> None:
    assert show(server.dsn(), "fsync") == "off"
    with PostgresServer(settings={"max_connections": 17, "shared_buffers": "16MB"}) as durable:
        assert show(durable.dsn(), "fsync") == "on"
        assert show(durable.dsn(), "max_connections") == "17"
        assert show(durable.dsn(), "shared_buffers") == "16MB"


def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    server = PostgresServer(settings={"shared_buffers": "nonsense"})
    with pytest.raises(RuntimeError, match=r"did not start[\s\S]*shared_buffers"):
        server.__enter__()
    assert not server.folder.exists()


def test_nothing_is_left_when_it_is_closed() -> None:
    with PostgresServer(fsync=False) as server:
        pid, folder = server.pid, server.folder
        assert pid is not None
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_is_left_when_whoever_started_it_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        pid, folder = holder.stdout.readline().split()
        watch = os.pidfd_open(int(pid))
        holder.send_signal(signal.SIGKILL)
    try:
        wait_until_readable(watch)
    finally:
        os.close(watch)
    wait_until_gone(Path(folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by PostgreSQL")
def test_root_runs_programs_from_a_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    programs = wheel_programs()
    assert programs is not None
    package = programs.parent.parent
    closed = tmp_path / "site-packages"
    shutil.copytree(package, closed / package.name)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, closed / libraries.name)
    for path in [*closed.rglob("*"), closed]:
        path.chmod(path.stat().st_mode & 0o700)
    with PostgresServer(programs=closed / package.name / "pginstall/bin", fsync=False) as server:
        put(server.dsn(), "copied")
        assert kept(server.dsn(socket=True)) == ["copied"]


@pytest.mark.skipif(debian_programs(15) is None, reason="not installed: postgresql-15")
def test_debians_programs_run_the_same_way() -> None:
    with PostgresServer(programs=debian_programs(15), fsync=False) as server:
        assert show(server.dsn(), "server_version").startswith("15.")
        server.kill()
        with server.fresh_database() as dsn:
            put(dsn, "fifteen")
            assert kept(dsn) == ["fifteen"]


def test_databases_are_made_and_dropped_on_a_given_server(server: PostgresServer) -> None:
    given = GivenServer(server.dsn())
    before = names(given)
    with given.fresh_database() as dsn:
        put(dsn, "given")
        assert kept(dsn) == ["given"]
        (made,) = names(given) - before
        assert made.startswith("mailrace_test_")
    assert names(server) == before


def test_the_fixture_gives_an_empty_database(postgres_dsn: str) -> None:
    put(postgres_dsn, "mine")
    assert kept(postgres_dsn) == ["mine"]


@needs_pgbouncer
def test_pgbouncer_gives_its_connections_to_a_transaction_at_a_time(
    server: PostgresServer, dsn: str
) -> None:
    name = dsn.rpartition("/")[2]
    with pgbouncer.PgBouncer(server, pool_size=1) as pooler:
        pooled = f"{pooler.dsn(name)}?connect_timeout=30"
        # With a connection a session, the second one would wait for the first for ever.
        with closing(psycopg.connect(pooled)) as idle:
            idle.execute("SELECT 1")
            idle.commit()
            put(pooled, "pooled")
            idle.execute("INSERT INTO kept VALUES ('idle no more')")
            idle.commit()
    assert kept(dsn) == ["pooled", "idle no more"]


@needs_pgbouncer
def test_databases_are_made_and_dropped_through_pgbouncer(server: PostgresServer) -> None:
    before = names(server)
    with pgbouncer.PgBouncer(server) as pooler:
        with GivenServer(pooler.dsn()).fresh_database() as dsn:
            put(dsn, "given")
            assert kept(dsn) == ["given"]
            assert len(names(server) - before) == 1
        folder = pooler.folder
    assert names(server) == before
    assert not folder.exists()


@pytest.mark.skipif(debian_programs(15) is None, reason="not installed: postgresql-15")
def test_a_command_is_run_with_another_server_and_has_the_last_word() -> None:
    asks = (
        "import os, sys, psycopg\n"
        "with psycopg.connect(os.environ['MAILRACE_TEST_POSTGRES']) as connection:\n"
        "    sys.exit(connection.info.server_version // 10_000)\n"
    )
    assert with_postgres("15", sys.executable, "-c", asks).returncode == 15


def test_a_command_is_not_run_where_the_server_is_not_installed() -> None:
    ended = with_postgres("7", "false")
    assert ended.returncode == 0
    assert ended.stderr == "not installed: postgresql-7; skipped: false\n"


def test_a_server_that_nobody_knows_is_wrong_use() -> None:
    ended = with_postgres("oracle", "true")
    assert ended.returncode == 2
    assert "no such server: oracle" in ended.stderr


def with_postgres(server: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/with_postgres.py", server, "--", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def wait_until_readable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(20_000)  # without its folder it would end by itself, after half a minute


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()
