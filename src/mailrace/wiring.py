"""The only place that joins adapters to ports: from URLs to a store and a mailer."""

import asyncio
import os
from asyncio import AbstractEventLoop, new_event_loop
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

from mailrace.clock import Clock, SystemClock
from mailrace.errors import MisuseError
from mailrace.mail.message import Mailer
from mailrace.mail.providers.sandbox import SandboxMailer
from mailrace.mail.providers.smtp import SmtpMailer, parse_smtp_url
from mailrace.pool import Limiter, NoLimit, RateLimit
from mailrace.pool.extras import load
from mailrace.queue import LimitRow, Place, Store, boot_id, node_of, shared_limiter
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.stores.sqlite.backup import backup as sqlite_backup
from mailrace.queue.stores.sqlite.backup import restore as sqlite_restore
from mailrace.queue.stores.sqlite.pending import pending as sqlite_pending

_POSTGRES: Final = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A store, and where this machine's processes that use it keep their journals.

    Attributes:
        distant: Processes of other machines may use it.
    """

    store: Store
    journals: Path
    distant: bool

    @property
    def place(self) -> Place:
        """What a process that works needs; whoever only enqueues leaves no folder behind.

        Raises:
            UnavailableError: The folder cannot be used.
        """
        node = node_of(self.journals) if self.distant else ""
        return Place(journals=self.journals, boot=boot_id(), node=node)


class Chance:
    """Where ids and samples come from."""

    def __init__(self) -> None:
        self.rng = Random()  # noqa: S311 - a sample of rows, no secret

    def name(self) -> UUID:
        return uuid4()

    def token(self) -> str:
        return uuid4().hex[:20]


async def open_store(
    url: str, clock: Clock | None = None, *, journals: str | None = None, redis: str | None = None
) -> Stored:
    """Opens what `sqlite:///PATH` (four slashes for an absolute path) or `postgresql://…` names.

    A SQLite file is made, or brought up to date, on the way; so is an empty database.

    Args:
        journals: The folder of the journals; by default beside a SQLite file, and for PostgreSQL
            in the user's folder for state.
        redis: A Redis to put beside the store, as a cache for limits and wake-ups.

    Raises:
        MisuseError: Another kind of store, or one that cannot be used; says what to do.
        UnavailableError: The server is out of reach.
    """
    path = store_path(url)
    if path is not None:
        folder = Path(journals) if journals else path.parent / f"{path.name}.journals"
        store = await _cached(SqliteStore.open(path, clock or SystemClock()), redis, clock)
        return Stored(store=store, journals=folder, distant=False)
    folder = Path(journals) if journals else _state_folder(url)
    postgres = await _cached(await _postgres().open(url, clock), redis, clock)
    return Stored(store=postgres, journals=folder, distant=True)


def check_redis(url: str) -> None:
    """Reads an address and loads what is needed for it; connects to nothing.

    Raises:
        MisuseError: It is no address, or the extra is not installed.
    """
    load("valkey", extra="redis")
    server: Any = import_module("mailrace.queue.stores.redis_cache.server")
    server.client_of(url)


async def _cached(store: Store, redis: str | None, clock: Clock | None) -> Store:
    """The store with a Redis beside it, imported where somebody has one."""
    if not redis:
        return store
    try:
        load("valkey", extra="redis")
        cached: Any = import_module("mailrace.queue.stores.redis_cache").CachedStore
        opened: Store = await cached.open(store, redis, clock or SystemClock(), Chance().token)
    except BaseException:
        await store.close()
        raise
    return opened


def store_path(url: str) -> Path | None:
    """The file that a store's URL names; `None` for a server.

    Raises:
        MisuseError: Another kind of store.
    """
    scheme, _, rest = url.partition("://")
    if scheme in _POSTGRES and rest:
        return None
    if scheme != "sqlite" or not rest.startswith("/") or len(rest) < 2:
        raise MisuseError(
            f"{_without_secret(url)!r} is not a store that can be used",
            hint="write --store, or DATABASE_URL, like sqlite:///mail.db or postgresql://…",
        )
    if rest.startswith("/:memory:"):
        raise MisuseError(
            f"{url!r} is no store: a store has to outlive the process",
            hint="name a file: sqlite:///jobs.db",
        )
    return Path(unquote(rest[1:]))


def _postgres() -> Any:
    """The store on PostgreSQL, which is imported where somebody has one."""
    load("psycopg", extra="postgres")
    return import_module("mailrace.queue.stores.postgres").PostgresStore


def describe_store(url: str) -> str:
    """A store as it may be shown: without user and password.

    Raises:
        MisuseError: Another kind of store.
    """
    path = store_path(url)
    return _without_secret(url.partition("?")[0]) if path is None else f"sqlite:///{path}"


def store_is_there(url: str) -> bool:
    """Whether somebody has made the store already; finding out does not.

    Raises:
        MisuseError: Another kind of store, or one that cannot be used.
        UnavailableError: The server is out of reach.
    """
    path = store_path(url)
    if path is not None:
        return path.exists()
    todo, every = pending_migrations(url), _postgres_part("migrate").migrations()
    return len(todo) < len(every)


def pending_migrations(url: str) -> list[str]:
    """The names of the scripts that `migrate` would run.

    Raises:
        As `store_is_there`.
    """
    path = store_path(url)
    found: list[str] = (
        sqlite_pending(path) if path is not None else _postgres_part("pending").pending(url)
    )
    return found


async def migrate(url: str) -> list[str]:
    """Makes a store or brings it up to date; returns the names of the scripts that were run.

    Raises:
        As `open_store`.
    """
    path = store_path(url)
    if path is None:
        names: list[str] = await asyncio.to_thread(_postgres_part("migrate").migrate, url)
        return names
    todo = sqlite_pending(path)
    await (await open_store(url)).store.close()
    return todo


def backup(url: str, copy: Path) -> None:
    """Writes everything that a store holds at this moment to a new file, while it is in use.

    Raises:
        MailraceError: There is no store, or the file is there already or cannot be written.
    """
    path = store_path(url)
    if path is None:
        _postgres_part("backup").backup(url, copy)
    else:
        sqlite_backup(path, copy)


def restore(url: str, copy: Path) -> None:
    """Makes a store from what `backup` wrote, where there is none or an empty one.

    Raises:
        MailraceError: The file is no whole backup, or there is something in the store.
    """
    path = store_path(url)
    if path is None:
        _postgres_part("backup").restore(url, copy)
    else:
        sqlite_restore(copy, path)


def connections_of(store: Store) -> int | None:
    """How many connections to its server a working process has, at most; `None`: no server."""
    return getattr(store, "connections", None)


def _postgres_part(name: str) -> Any:
    _postgres()
    return import_module(f"mailrace.queue.stores.postgres.{name}")


def enqueue_by() -> Any:
    """What enqueues on connections of a program's own, imported where somebody has one."""
    load("psycopg", extra="postgres")
    return import_module("mailrace.queue.stores.postgres.transactions")


def _state_folder(url: str) -> Path:
    """Where journals for a server are kept: one folder a user, server and database."""
    try:
        parts = urlsplit(url)
        server = f"{parts.hostname or ''}:{parts.port or 5432}{parts.path}"
    except ValueError:  # a port that is no number, brackets that do not close
        raise MisuseError(
            "the address of the PostgreSQL store cannot be read",
            hint="write postgresql://user:password@host:5432/database",
        ) from None
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "mailrace" / sha256(server.encode()).hexdigest()[:16]


def open_mailer(url: str, clock: Clock | None = None) -> Mailer:
    """Opens what a provider URL names; nothing is connected yet.

    Raises:
        MisuseError: It cannot be parsed; says what to write.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in {"smtp", "smtps"}:
        return SmtpMailer(parse_smtp_url(url), clock=clock)
    if scheme == "sandbox":
        return SandboxMailer(Path(url.partition(":")[2] or "outbox"))
    raise MisuseError(
        f"{_without_secret(url)!r} is not a provider",
        hint="write --via like smtp://user:password@relay.example:587 or sandbox:FOLDER",
    )


def open_limiter(rate: str, name: str, stored: Stored, clock: Clock) -> Limiter:
    """The limit over everyone who sends under `name` on this store; `none` for none.

    Raises:
        MisuseError: The text is no rate.
    """
    if rate.strip().lower() == "none":
        return NoLimit()
    limit = LimitRow(name=name, rates=str(RateLimit.parse(rate)))
    return shared_limiter(stored.store, name, limit, clock)


def event_loop() -> Callable[[], AbstractEventLoop]:
    """The fastest event loop there is: uvloop's where it is installed."""
    if find_spec("uvloop") is None:
        return new_event_loop
    loop_factory: Callable[[], AbstractEventLoop] = import_module("uvloop").new_event_loop
    return loop_factory


def _without_secret(url: str) -> str:
    """The URL as it may be shown: without user and password."""
    if "@" not in url:
        return url
    return f"{urlsplit(url).scheme or url.partition(':')[0]}://…@{url.rpartition('@')[2]}"
