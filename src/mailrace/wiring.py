"""The only place that joins adapters to ports: from URLs to a store and a mailer."""

from asyncio import AbstractEventLoop, new_event_loop
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

from mailrace.clock import Clock, SystemClock
from mailrace.errors import MisuseError
from mailrace.mail.message import Mailer
from mailrace.mail.providers.sandbox import SandboxMailer
from mailrace.mail.providers.smtp import SmtpMailer, parse_smtp_url
from mailrace.pool import Limiter, NoLimit, Rate, SharedRateLimiter
from mailrace.queue.stores.sqlite import SqliteStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A store and where its processes keep their journals."""

    store: SqliteStore
    journals: Path


class Chance:
    """Where ids and samples come from."""

    def __init__(self) -> None:
        self.rng = Random()  # noqa: S311 - a sample of rows, no secret

    def name(self) -> UUID:
        return uuid4()

    def token(self) -> str:
        return uuid4().hex[:20]


def open_store(url: str, clock: Clock | None = None) -> Stored:
    """Opens what `sqlite:///PATH` names; four slashes for an absolute path.

    Raises:
        MisuseError: Another kind of store, or a path that cannot be used.
    """
    path = store_path(url)
    store = SqliteStore.open(path, clock or SystemClock())
    return Stored(store=store, journals=path.with_name(f"{path.name}.journals"))


def store_path(url: str) -> Path:
    """The file that a store's URL names.

    Raises:
        MisuseError: Another kind of store.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite" or not rest.startswith("/") or len(rest) < 2:
        raise MisuseError(
            f"{_without_secret(url)!r} is not a store that can be used",
            hint="write --store, or DATABASE_URL, like sqlite:///mail.db",
        )
    return Path(unquote(rest[1:]))


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
    return SharedRateLimiter(
        Rate.parse(rate),
        clock,
        lambda schedule, slots: stored.store.take_slots(name, schedule, slots),
    )


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
