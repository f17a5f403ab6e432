"""Makes and upgrades the tables, and tells whether this code fits them."""

import re
from importlib.resources import files
from typing import Any

import msgspec
import psycopg

from mailrace.errors import MisuseError
from mailrace.queue.stores.postgres.database import connect_blocking
from mailrace.queue.stores.postgres.dsn import address
from mailrace.queue.stores.postgres.mapping import mapped_errors, no_tables

# "mailrace" on a telephone: whoever migrates holds it until the end of the transaction.
_LOCK = 62457223
_OLDEST_CODE = re.compile(r"^-- oldest code: (\d+)$", re.MULTILINE)
_LEDGER = """
CREATE SCHEMA IF NOT EXISTS mailrace;
CREATE TABLE IF NOT EXISTS mailrace.migrations (
    number      integer     PRIMARY KEY,
    name        text        NOT NULL,
    oldest_code integer     NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
)
"""

_Connection = psycopg.Connection[tuple[Any, ...]]


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered script.

    Attributes:
        oldest_code: Code that knows the scripts up to this number works with the tables after it:
            during a rolling upgrade the old processes go on.
    """

    number: int
    name: str
    oldest_code: int
    script: str


def migrations() -> list[Migration]:
    """All scripts, in their order."""
    found = sorted(files(__package__).joinpath("migrations").iterdir(), key=lambda file: file.name)
    return [_migration(file.name, file.read_text(encoding="utf-8")) for file in found]


def _migration(name: str, script: str) -> Migration:
    number = int(name[:4])
    declared = _OLDEST_CODE.search(script)
    oldest_code = int(declared[1]) if declared else number
    return Migration(
        number=number, name=name.removesuffix(".sql"), oldest_code=oldest_code, script=script
    )


def migrate(dsn: str, *, up_to: int | None = None) -> list[str]:
    """Brings the tables up to date and returns the names of the scripts that were run.

    All in one transaction; of several that try at the same time one does it.

    Args:
        up_to: The last script to run; all by default.
    """
    found = address(dsn)
    with mapped_errors(found.place), connect_blocking(found.dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(_LEDGER)
        done = _state(connection)[0]
        todo = [m for m in migrations() if done < m.number <= (up_to or m.number)]
        for migration in todo:
            connection.execute(migration.script.encode())
            connection.execute(
                "INSERT INTO mailrace.migrations (number, name, oldest_code) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.oldest_code),
            )
    return [migration.name for migration in todo]


def prepare(dsn: str) -> None:
    """Checks that this code fits the tables; makes them where there is no schema of that name.

    Raises:
        MisuseError: They are older than this code, too new for it, or not ours.
        UnavailableError: The server cannot be reached.
    """
    found = address(dsn)
    with mapped_errors(found.place), connect_blocking(found.dsn) as connection:
        if not _has_schema(connection):
            connection.rollback()
            migrate(dsn)
        _check(connection, found.place)


def _check(connection: _Connection, place: str) -> None:
    number, oldest_code = _state(connection)
    newest = migrations()[-1].number
    if number < newest:
        raise no_tables(place)
    if oldest_code > newest:
        raise MisuseError(
            f"the store {place} was upgraded by a newer Mailrace", hint="upgrade Mailrace here too"
        )


def _has_schema(connection: _Connection) -> bool:
    return connection.execute("SELECT to_regnamespace('mailrace')").fetchone() != (None,)


def _state(connection: _Connection) -> tuple[int, int]:
    row = connection.execute(
        "SELECT coalesce(max(number), 0), coalesce(max(oldest_code), 0) FROM mailrace.migrations"
    ).fetchone()
    assert row is not None
    return row[0], row[1]
