"""Copies of a store on SQLite, made while it is in use, and their way back.

A copy is of one moment. It also has the processes that were at work then: where it is restored
they are soon found silent, and what they held is treated as after a crash.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from mailrace.errors import MisuseError
from mailrace.queue.stores.sqlite.database import (
    APPLICATION_ID,
    BUSY_S,
    mapped_errors,
    newest_version,
)


def backup(store: Path, copy: Path) -> None:
    """Writes all that a store holds at this moment to a new file.

    Raises:
        MisuseError: The store is none, or the copy is there already or cannot be written.
        UnavailableError: The store or the disk cannot be used now.
    """
    if not store.exists():
        raise MisuseError(f"there is no store {store}", hint="give the path of its file")
    _copy(store, copy)


def restore(copy: Path, store: Path) -> None:
    """Makes a store from a copy, where there is none or an empty one.

    Raises:
        MisuseError: The copy is no whole copy of a store that this version can read, or there is
            something in the store.
        UnavailableError: The disk cannot be used now.
    """
    if not copy.exists():
        raise MisuseError(f"there is no file {copy}", hint="give the path of a copy")
    _check(copy)
    if store.exists() and store.stat().st_size == 0:
        store.unlink()
    _copy(copy, store)


def _copy(source: Path, target: Path) -> None:
    """Copies to a file beside it first: under its name it is whole or not there."""
    if target.exists():
        raise MisuseError(f"{target} is there already", hint="give a path where there is nothing")
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with mapped_errors(source), closing(sqlite3.connect(source, timeout=BUSY_S)) as reading:
            _check_owner(reading, source)
            # One step for all pages: a backup of several begins anew whenever somebody writes.
            with mapped_errors(target), closing(sqlite3.connect(partial)) as writing:
                reading.backup(writing)
        _sync(partial)
        os.link(partial, target)  # refuses to replace what somebody made meanwhile
    except FileExistsError as error:
        raise MisuseError(f"{target} is there already", hint="give another path") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _check(copy: Path) -> None:
    with (
        mapped_errors(copy),
        closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        _check_owner(connection, copy)
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise MisuseError(f"{copy} is damaged: {verdict}", hint="use another copy")


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if owner != APPLICATION_ID or version < 1:
        raise MisuseError(f"{path} is no store of Mailrace", hint="give the path of its file")
    if version > newest_version():
        raise MisuseError(
            f"{path} was made by a newer version of Mailrace", hint="upgrade Mailrace"
        )


def _sync(path: Path) -> None:
    for name in (path, path.absolute().parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
