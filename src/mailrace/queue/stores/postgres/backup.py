"""One file with everything that a store on PostgreSQL holds, and the way back.

The file is a ZIP archive: the rows of every table as `COPY` writes them, and a manifest. It needs
no program besides this one, and a newer Mailrace reads an older one's files.
"""

import os
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue.stores.postgres.database import statement, with_defaults
from mailrace.queue.stores.postgres.dsn import Address, address
from mailrace.queue.stores.postgres.mapping import mapped_errors
from mailrace.queue.stores.postgres.migrate import migrate, migrations

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_CHUNK_BYTES: Final = 1 << 20
# What the store numbered after the backup was made may be known elsewhere: in journals, in other
# people's tables. None of these numbers is given out again.
_GAP: Final = 1_000_000

# What reading an archive that is damaged, or none of ours, may end in.
_UNREADABLE: Final = (
    KeyError, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile,
    msgspec.DecodeError,
)  # fmt: skip

_Connection = psycopg.Connection[tuple[Any, ...]]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table in the file, under `NAME.copy`."""

    name: str
    columns: tuple[str, ...]
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the file.

    Attributes:
        schema: The number of the last migration of the tables.
        made_at: When, by this machine's clock.
        tables: In the order in which they can be filled.
        sequences: The last number that each gave out.
        days: Those that have a partition of their own.
    """

    mailrace: int
    schema: int
    made_at: datetime
    tables: tuple[Table, ...]
    sequences: dict[str, int]
    days: tuple[date, ...]


def backup(dsn: str, path: Path) -> Manifest:
    """Writes all rows as they are at one moment; whoever works on the store goes on meanwhile.

    Raises:
        ConflictError: There is such a file.
        MisuseError: The database has no store in it, or the file cannot be written.
        UnavailableError: The server cannot be reached, or went away.
    """
    found = address(dsn)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    _refuse_existing(path)
    try:
        with (
            mapped_errors(found.place),
            closing(_connect(found)) as connection,
            draft.open("wb") as file,
        ):
            manifest = _write(connection, file)
            file.flush()
            os.fsync(file.fileno())
        _refuse_existing(path)
        draft.rename(path)
    except OSError as error:
        raise MisuseError(
            f"the backup {path} cannot be written: {error.strerror}", hint="give another path"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def restore(dsn: str, path: Path) -> Manifest:
    """Fills an empty store from a file, all of it or nothing, and brings it up to date.

    Processes that worked on the store when the backup was made are taken for dead, and their jobs
    are rescued. Stop them first if they still have this address.

    Raises:
        ConflictError: There is something in the store.
        MisuseError: The file is no backup, is damaged, or was made by a newer Mailrace.
        UnavailableError: The server cannot be reached, or went away.
    """
    found = address(dsn)
    with _archive(path) as archive, mapped_errors(found.place):
        manifest = _checked(archive, path)
        migrate(dsn, up_to=manifest.schema)
        with _connect(found) as connection:
            _fill(connection, archive, manifest, found.place)
        migrate(dsn)
    return manifest


def _connect(found: Address) -> _Connection:
    return psycopg.connect(found.dsn, prepare_threshold=None, **with_defaults(found.dsn))


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConflictError(f"{path} is there already", hint="give a path that is free")


def _write(connection: _Connection, file: Any) -> Manifest:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        schema = _schema(connection)
        tables = [
            _write_table(connection, archive, name, columns)
            for name, columns in _rows(connection, "backup_tables")
        ]
        manifest = Manifest(
            mailrace=_FORMAT,
            schema=schema,
            made_at=datetime.now(UTC),
            tables=tuple(tables),
            # After the rows: a sequence knows no snapshot, and has to be ahead of all of them.
            sequences=dict(_rows(connection, "backup_sequences")),
            days=tuple(day for (day,) in _rows(connection, "days")),
        )
        archive.writestr(_MANIFEST, msgspec.json.encode(manifest))
    return manifest


def _write_table(
    connection: _Connection, archive: zipfile.ZipFile, name: str, columns: list[str]
) -> Table:
    # By a query: a partitioned table cannot be copied as it is before PostgreSQL 18.
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
        _names(columns), sql.Identifier("mailrace", name)
    )
    with connection.cursor() as cursor:
        with (
            archive.open(f"{name}.copy", "w", force_zip64=True) as entry,
            cursor.copy(query) as rows,
        ):
            for chunk in rows:
                entry.write(chunk)
        return Table(name=name, columns=tuple(columns), rows=cursor.rowcount)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise _no_backup(path, error) from error


def _checked(archive: zipfile.ZipFile, path: Path) -> Manifest:
    """The manifest of a file that is whole."""
    try:
        manifest = msgspec.json.decode(archive.read(_MANIFEST), type=Manifest)
        damaged = archive.testzip()
    except _UNREADABLE as error:
        raise _no_backup(path, error) from error
    missing = {f"{table.name}.copy" for table in manifest.tables} - set(archive.namelist())
    if damaged or missing:
        raise _no_backup(path, f"{damaged or min(missing)} is damaged")
    if manifest.mailrace > _FORMAT or manifest.schema > migrations()[-1].number:
        raise MisuseError(
            f"the backup {path} was made by a newer Mailrace", hint="upgrade Mailrace here too"
        )
    return manifest


def _no_backup(path: Path, why: object) -> MisuseError:
    return MisuseError(
        f"{path} is no backup of a store, or not all of one: {why}",
        hint="give a file that mailrace backup wrote",
    )


def _fill(
    connection: _Connection, archive: zipfile.ZipFile, manifest: Manifest, place: str
) -> None:
    known = {name: set(columns) for name, columns in _rows(connection, "backup_tables")}
    _check_empty(connection, known, manifest, place)
    for day in manifest.days:
        connection.execute("SELECT mailrace.add_day(%s)", (day,))
    for table in manifest.tables:
        _fill_table(connection, archive, table)
    for name, last in manifest.sequences.items():
        connection.execute(
            "SELECT setval(format('mailrace.%%I', %s::text)::regclass, %s)", (name, last + _GAP)
        )
    connection.execute(statement("restore_processes"))


def _check_empty(
    connection: _Connection, known: dict[str, set[str]], manifest: Manifest, place: str
) -> None:
    schema = _schema(connection)
    if schema != manifest.schema:
        raise ConflictError(
            f"the store {place} has tables of number {schema}, the backup of {manifest.schema}",
            hint="give a database without the schema mailrace",
        )
    for table in manifest.tables:
        if not known.get(table.name, set()).issuperset(table.columns):
            raise MisuseError(
                f"the backup has a table {table.name!r} that does not belong into {place}",
                hint="give a file that mailrace backup wrote",
            )
    for name in known:
        table_name = sql.Identifier("mailrace", name)
        connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(table_name))
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table_name)
        if connection.execute(query).fetchone() != (False,):
            raise ConflictError(
                f"there is something in the store {place} already: {name}",
                hint="give an empty database",
            )


def _fill_table(connection: _Connection, archive: zipfile.ZipFile, table: Table) -> None:
    query = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier("mailrace", table.name), _names(table.columns)
    )
    with connection.cursor() as cursor:
        with archive.open(f"{table.name}.copy") as entry, cursor.copy(query) as rows:
            while chunk := entry.read(_CHUNK_BYTES):
                rows.write(chunk)
        if cursor.rowcount != table.rows:
            raise MisuseError(
                f"the backup has {cursor.rowcount} rows of {table.name!r}, and should"
                f" have {table.rows}",
                hint="give a file that mailrace backup wrote",
            )


def _schema(connection: _Connection) -> int:
    rows = connection.execute("SELECT max(number) FROM mailrace.migrations").fetchall()
    number: int = rows[0][0]
    return number


def _rows(connection: _Connection, name: str) -> list[tuple[Any, ...]]:
    return connection.execute(statement(name)).fetchall()


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
