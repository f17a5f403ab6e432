"""What an upgrade of a SQLite file would do, found out without touching the file."""

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from mailrace.queue.stores.sqlite.database import mapped_errors


def pending(path: Path) -> list[str]:
    """The names of the scripts that opening the file would run; all where there is no file."""
    names = sorted(file.name for file in files(__package__).joinpath("migrations").iterdir())
    return [name.removesuffix(".sql") for name in names[_done(path) :]]


def _done(path: Path) -> int:
    if not path.exists():
        return 0
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with mapped_errors(path), closing(sqlite3.connect(uri, uri=True)) as connection:
        number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return number
