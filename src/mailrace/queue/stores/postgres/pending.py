"""What a migration would do, found out without doing any of it."""

from mailrace.queue.stores.postgres.database import connect_blocking
from mailrace.queue.stores.postgres.dsn import address
from mailrace.queue.stores.postgres.mapping import mapped_errors
from mailrace.queue.stores.postgres.migrate import migrations


def pending(dsn: str) -> list[str]:
    """The names of the scripts that `migrate` would run; all where there are no tables.

    Raises:
        UnavailableError: The server cannot be reached.
    """
    found = address(dsn)
    with mapped_errors(found.place), connect_blocking(found.dsn) as connection:
        ledger = connection.execute("SELECT to_regclass('mailrace.migrations')").fetchone()
        done = 0
        if ledger != (None,):
            row = connection.execute("SELECT max(number) FROM mailrace.migrations").fetchone()
            done = (row and row[0]) or 0
    return [migration.name for migration in migrations() if migration.number > done]
