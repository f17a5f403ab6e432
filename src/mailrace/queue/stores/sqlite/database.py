"""One SQLite connection: how it is opened, migrated, queried, and what its errors mean to us."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from mailrace.errors import ConflictError, MisuseError, UnavailableError
from mailrace.queue.jobs import key_digest

# The operator -> on JSON (sqlite.org/changes.html, 3.38.0).
_OLDEST = (3, 38, 0)
BUSY_S = 30.0
# "Race", as file(1) may show it (sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x52616365
_WAL_RETRY_S = 0.01
_LOCK_RETRY_S = 0.0005
_TEMPORARY = ("temp_claiming", "temp_finishing", "temp_chosen")


@cache
def statement(name: str) -> str:
    """The text of `sql/NAME.sql`."""
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file for one thread, with every commit on disk before it returns.

    Raises:
        MisuseError: The path leads nowhere, or to something that is no database.
        UnavailableError: The file is locked for longer than half a minute.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise MisuseError(
            f"this Python has SQLite {sqlite3.sqlite_version}",
            hint="use a Python with SQLite 3.38 or newer",
        )
    with mapped_errors(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA foreign_keys = OFF")  # every row is written by us, in order
            connection.execute("PRAGMA cache_size = -16384")  # KiB: memory stays bounded
        except BaseException:
            connection.close()
            raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # Of several that open a new file at once only one may change its mode, and SQLite tells the
    # others at once that it is locked instead of having them wait.
    until_s = time.monotonic() + BUSY_S
    while True:
        try:
            _refuse_foreign(connection)
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return


def prepare(connection: sqlite3.Connection) -> None:
    """Brings the schema up to date and makes the temporary tables."""
    connection.create_function("key_digest", 2, key_digest, deterministic=True)
    _migrate(connection)
    for name in _TEMPORARY:
        connection.execute(statement(name))


def _migrate(connection: sqlite3.Connection) -> None:
    scripts = _scripts()
    with transaction(connection):
        _claim_file(connection)
        (done,) = connection.execute("PRAGMA user_version").fetchone()
        if done > len(scripts):
            raise MisuseError(
                "the store was made by a newer version of Mailrace", hint="upgrade Mailrace"
            )
        for number, script in enumerate(scripts[done:], start=done + 1):
            for part in _statements(script.read_text(encoding="utf-8")):
                connection.execute(part)
            connection.execute(f"PRAGMA user_version = {number}")


def newest_version() -> int:
    """The version of the schema that this code works on."""
    return len(_scripts())


def _scripts() -> list[Traversable]:
    return sorted(files(__package__).joinpath("migrations").iterdir(), key=lambda file: file.name)


def _claim_file(connection: sqlite3.Connection) -> None:
    """Marks a new database as ours."""
    _refuse_foreign(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    """Refuses a database that is another program's, before anything in it is changed."""
    # One statement, which sees one moment: another process may be making the store right now.
    owner, tables = connection.execute(
        "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id"
    ).fetchone()
    if owner != APPLICATION_ID and (owner or tables):
        raise MisuseError("it is another program's database", hint="give --store another path")


def _statements(script: str) -> Iterator[str]:
    # executescript would commit the transaction around it.
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A short write transaction: all of it on disk at the end, or nothing."""
    _begin_writing(connection)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _begin_writing(connection: sqlite3.Connection) -> None:
    """Takes the lock, as soon as it is free: SQLite's own wait grows to a tenth of a second."""
    until_s = time.monotonic() + BUSY_S
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                # Also in its longer forms, as while another process recovers the log.
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until_s:
                    raise
                time.sleep(_LOCK_RETRY_S)
            else:
                return
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that only reads, and sees one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite says into what the caller can do about it."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ConflictError(
            f"the store {path} refused a step: {error}", hint="look at it again; nothing was done"
        ) from error
    except sqlite3.OperationalError as error:
        raise _operational(error, path) from error
    except sqlite3.DatabaseError as error:
        raise MisuseError(
            f"{path} cannot be used as a store: {error}", hint="give --store another path"
        ) from error


def _operational(error: sqlite3.OperationalError, path: Path) -> MisuseError | UnavailableError:
    text = str(error)
    if "unable to open" in text or "readonly" in text:
        return MisuseError(
            f"the store {path} cannot be written: {text}",
            hint="check that its folder exists and that you may write there",
        )
    hint = {
        "database or disk is full": "free some space; nothing is lost",
        "database is locked": "another program holds the file; try again when it has ended",
    }.get(text, "")
    return UnavailableError(f"the store {path} is not usable now: {text}", hint=hint)


def one(connection: sqlite3.Connection, name: str, /, **values: Any) -> Any:
    """The single value that a statement answers with, or `None`."""
    row = connection.execute(statement(name), values).fetchone()
    return None if row is None else row[0]


def run(connection: sqlite3.Connection, name: str, /, **values: Any) -> int:
    """Runs a statement and returns how many rows it changed."""
    return connection.execute(statement(name), values).rowcount
