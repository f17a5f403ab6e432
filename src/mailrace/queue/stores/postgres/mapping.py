"""What PostgreSQL's errors mean to the caller: the one place that maps them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors

from mailrace.errors import ConflictError, MailraceError, MisuseError, UnavailableError

# The SQLSTATEs with which the functions of the migrations refuse.
_OURS: dict[str, type[MailraceError]] = {"MR400": MisuseError, "MR409": ConflictError}
_OUTSIDE = (errors.ReadOnlySqlTransaction, psycopg.OperationalError, psycopg.InterfaceError)
_WRONG_VALUES = (errors.CheckViolation, errors.NotNullViolation)
_MISSING = (
    errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction,
    errors.UndefinedObject, errors.UndefinedColumn,
)  # fmt: skip
# Of a connection that is refused there is only libpq's text, with the server's in it.
_REFUSED = (
    (r"password authentication failed|no password supplied", "check its user and password"),
    (r"no pg_hba\.conf entry", "let this machine in by pg_hba.conf"),
    (r'role ".*" does not exist', "check the user in the address"),
    (r'database ".*" does not exist', "create it, or check the name in the address"),
    (r"permission denied for database", "grant the user CONNECT on the database"),
)
_HINTS: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.DiskFull, "free some space on the server; nothing is lost"),
    (errors.TooManyConnections, "raise max_connections, or put PgBouncer in between"),
    (errors.ReadOnlySqlTransaction, "it is a standby: give the address of the primary"),
    (errors.DeadlockDetected, "try again"),
    (errors.SerializationFailure, "try again"),
    (errors.LockNotAvailable, "somebody holds a lock: look at pg_stat_activity"),
    (errors.QueryCanceled, "somebody cancelled the statement, or its time was over"),
)


@contextmanager
def mapped_errors(place: str) -> Iterator[None]:
    """Turns what psycopg raises into what the caller can do about it.

    Args:
        place: The database in the messages; without a password.
    """
    try:
        yield
    except psycopg.Error as error:
        raise mapped(error, place) from error
    except TimeoutError as error:
        raise UnavailableError(
            f"the store {place} did not answer in time", hint="check the server and the network"
        ) from error


def mapped(error: psycopg.Error, place: str) -> MailraceError:
    """The error of ours that says the same."""
    text = (error.diag.message_primary or str(error)).strip().partition("\n")[0]
    hint = error.diag.message_hint or ""
    if error.sqlstate in _OURS:
        return _OURS[error.sqlstate](text, hint=hint)
    if isinstance(error, _MISSING):
        return no_tables(place)
    if isinstance(error, _OUTSIDE):
        return _operational(error, text, place)
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        # A row was on its way to the default partition while its day got one of its own.
        return UnavailableError(f"the store {place} is not usable now: {text}", hint="try again")
    if isinstance(error, psycopg.IntegrityError) and not isinstance(error, _WRONG_VALUES):
        return ConflictError(f"the store {place} refused a step: {text}", hint=hint)
    if isinstance(error, errors.InsufficientPrivilege):
        hint = "grant its user the rights on the schema mailrace"
    return MisuseError(f"the store {place} cannot do that: {text}", hint=hint)


def refusal(error: BaseException) -> MailraceError | None:
    """What one of our functions said, through whatever the program's own driver made of it."""
    cause: BaseException | None = error
    while cause is not None:
        code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        diagnosis = getattr(cause, "diag", None)
        if code in _OURS and diagnosis is not None:
            return _OURS[code](diagnosis.message_primary, hint=diagnosis.message_hint or "")
        cause = getattr(cause, "orig", None) or cause.__cause__
    return None


def no_tables(place: str) -> MisuseError:
    """What is said of a database that has no store in it, or an old one."""
    return MisuseError(
        f"the store {place} has no tables yet, or old ones",
        hint="run mailrace migrate --store with its address",
    )


def _operational(error: psycopg.Error, text: str, place: str) -> MailraceError:
    if error.sqlstate is None:
        for pattern, hint in _REFUSED:
            if re.search(pattern, str(error)):
                return MisuseError(f"the store {place} does not let us in: {text}", hint=hint)
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
    return UnavailableError(
        f"the store {place} is not usable now: {text}", hint=hint or "check that its server runs"
    )
