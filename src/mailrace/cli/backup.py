"""`mailrace backup` and `mailrace restore`: all that a store holds, as one file."""

from pathlib import Path
from typing import Final

from mailrace.cli.exits import DONE
from mailrace.cli.opening import check_there, settings_for
from mailrace.cli.output import as_json, tell
from mailrace.errors import ConflictError, MisuseError
from mailrace.wiring import backup as back_up_store
from mailrace.wiring import describe_store, store_path
from mailrace.wiring import restore as restore_store

# How the files begin: a SQLite database, and the archive of tables from PostgreSQL.
_SQLITE: Final = b"SQLite format 3\0"
_ZIP: Final = b"PK"


def backup(file: Path, /, *, store: str | None = None, json: bool = False) -> int:
    """Writes everything that the store holds at this moment to a new file, while it is in use.

    Args:
        file: The file; there must be none of that name.
        store: The store, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    url = settings_for(store=store).store
    check_there(url)
    try:
        back_up_store(url, file)
    except ConflictError as error:  # nothing was begun: what was given has to change
        raise MisuseError(error.problem, hint=error.hint) from error
    size = file.stat().st_size
    if json:
        tell(as_json({"store": describe_store(url), "file": str(file), "bytes": size}))
    else:
        tell(f"{describe_store(url)}: written to {file}, {size:,} bytes")
    return DONE


def restore(file: Path, /, *, store: str | None = None, json: bool = False) -> int:
    """Fills a store that is new or empty with what a backup holds.

    Stop those that worked on it when the backup was made: they are taken for dead.

    Args:
        file: What mailrace backup wrote.
        store: The store, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    url = settings_for(store=store).store
    _check_fits(url, file)
    try:
        restore_store(url, file)
    except ConflictError as error:
        raise MisuseError(error.problem, hint=error.hint) from error
    if json:
        tell(as_json({"store": describe_store(url), "file": str(file)}))
    else:
        tell(f"{describe_store(url)}: restored from {file}")
    return DONE


def _check_fits(url: str, file: Path) -> None:
    """Refuses the backup of one kind of store for the other, and names that."""
    try:
        with file.open("rb") as opened:
            start = opened.read(16)
    except OSError:
        return  # said by whoever reads it
    if store_path(url) is None and start == _SQLITE:
        raise MisuseError(
            f"{file} is the backup of a SQLite store, and {describe_store(url)} is PostgreSQL",
            hint="give --store sqlite:///PATH",
        )
    if store_path(url) is not None and start.startswith(_ZIP):
        raise MisuseError(
            f"{file} is the backup of a PostgreSQL store, and {describe_store(url)} is SQLite",
            hint="give --store postgresql://…",
        )
