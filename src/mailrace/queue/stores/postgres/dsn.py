"""The address of a PostgreSQL database, and the options in it that are ours. Pure."""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from mailrace.errors import MisuseError

_OURS = ("listen",)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the database is.

    Attributes:
        dsn: What libpq takes.
        listen: Where notifications are heard: the same address, another one that avoids a pooler,
            or `None`: nowhere.
        place: The database for people, without a password.
    """

    dsn: str
    listen: str | None
    place: str


def address(dsn: str) -> Address:
    """Parses `postgresql://…?listen=off|URL`, or libpq's `host=… dbname=…`.

    Raises:
        MisuseError: libpq cannot read it.
    """
    try:
        plain, ours = _split(dsn)
    except ValueError:
        raise _unreadable() from None
    listen = ours.get("listen", "on")
    for part in (plain, listen) if listen not in {"on", "off"} else (plain,):
        _check(part)
    return Address(
        dsn=plain,
        listen={"on": plain, "off": None}.get(listen, listen),
        place=_place(plain),
    )


def _split(dsn: str) -> tuple[str, dict[str, str]]:
    if "://" not in dsn:
        return dsn, {}
    parts = urlsplit(dsn)
    options = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in options if name in _OURS}
    if not ours:
        return dsn, {}
    rest = [(name, value) for name, value in options if name not in _OURS]
    return urlunsplit(parts._replace(query=urlencode(rest, quote_via=quote))), ours


def _check(dsn: str) -> None:
    try:
        conninfo_to_dict(dsn)
    except ProgrammingError:
        # libpq's words may quote the address, and with it the password.
        raise _unreadable() from None


def _unreadable() -> MisuseError:
    return MisuseError(
        "the address of the PostgreSQL store cannot be read",
        hint="write postgresql://user:password@host:5432/database",
    )


def _place(dsn: str) -> str:
    values = conninfo_to_dict(dsn)
    user = f"{values['user']}@" if values.get("user") else ""
    host = values.get("host") or "localhost"
    port = f":{values['port']}" if values.get("port") else ""
    return f"postgresql://{user}{host}{port}/{values.get('dbname') or ''}"
