"""A Redis that may be gone at any moment: asked briefly, and left alone while it is away."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Any, Final, TypeVar

import valkey.exceptions
from valkey import asyncio as valkey_asyncio

from mailrace.clock import Clock
from mailrace.errors import MisuseError, UnavailableError

_PATIENCE_S: Final = 0.25
_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 10.0
_HINT: Final = "go on without it; the store has everything"
_ENCRYPTED: Final = ("rediss", "valkeys")
# uvloop raises RuntimeError where somebody writes to a connection that has gone.
FAULTS: Final = (valkey.exceptions.ValkeyError, OSError, TimeoutError, RuntimeError)

Client = Any
"""A `valkey.asyncio.Valkey`, whose own types are not strict."""

_T = TypeVar("_T")


class Server:
    """One Redis or Valkey server.

    While it is in trouble one caller at a time finds out whether it is back, at growing intervals,
    and all others are told at once that it is not.

    Attributes:
        client: For whoever stays connected.
        trouble: What was wrong when it was asked last; `None`: nothing.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.client = client_of(url)
        self._shown = shown(url)
        self.trouble: Exception | None = None
        self._clock = clock
        self._again_s = -inf
        self._pause_s = _PAUSE_S

    async def ask(self, question: Callable[[Client], Awaitable[_T]]) -> _T:
        """What the server answers; never asked twice, as nothing says that it did not hear.

        Raises:
            UnavailableError: It does not answer, or not so.
        """
        self._enter()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await question(self.client)
        except FAULTS as error:
            self._leave_alone(error)
            raise UnavailableError(f"Redis cannot be used: {error}", hint=_HINT) from error
        self.trouble, self._pause_s = None, _PAUSE_S
        return answer

    async def greet(self) -> None:
        """Says hello; a server that is out of reach may come later.

        Raises:
            MisuseError: It refuses the user or the password.
        """
        with suppress(UnavailableError):
            await self.ask(lambda client: client.ping())
        # The client says so in an error about the connection.
        told = (self.trouble, getattr(self.trouble, "__cause__", None))
        if any(isinstance(error, valkey.exceptions.AuthenticationError) for error in told):
            raise MisuseError(
                f"{self._shown} does not take the user and password it was given",
                hint="correct them in redis, or REDIS_URL",
            )

    async def close(self) -> None:
        """Idempotent."""
        with suppress(*FAULTS):
            async with asyncio.timeout(_PATIENCE_S):
                await self.client.aclose()

    def _enter(self) -> None:
        if self.trouble is None:
            return
        now_s = self._clock.monotonic_s()
        if now_s < self._again_s:
            raise UnavailableError(f"Redis is left alone for a while: {self.trouble}", hint=_HINT)
        self._again_s = now_s + self._pause_s

    def _leave_alone(self, error: Exception) -> None:
        if self.trouble is not None:
            self._pause_s = min(_PAUSE_MAX_S, self._pause_s * 2)
        self.trouble = error
        self._again_s = self._clock.monotonic_s() + self._pause_s


def client_of(url: str) -> Client:
    """A client for `redis://`, `rediss://` (encrypted) or `unix://`; nothing is connected yet.

    Raises:
        MisuseError: It is no such address.
    """
    options: dict[str, Any] = {}
    if url.partition(":")[0].lower() in _ENCRYPTED:
        options["ssl_check_hostname"] = True
    try:
        pool = valkey_asyncio.ConnectionPool.from_url(url, **options)
        # Its own time-outs are `asyncio.wait_for`, which up to Python 3.11 may lose a cancellation
        # for ever; whoever asks has one already.
        pool.connection_kwargs |= {"socket_timeout": None, "socket_connect_timeout": None}
        make: Callable[[], object] = pool.make_connection
        make()  # now, or an unknown option would show only when it is used
        return valkey_asyncio.Valkey.from_pool(pool)
    except (TypeError, ValueError, valkey.exceptions.ValkeyError):
        # The text of such an error may have the password in it.
        raise MisuseError(
            f"{shown(url)!r} is no address of a Redis",
            hint="write redis, or REDIS_URL, like redis://user:password@host:6379/0",
        ) from None


def shown(url: str) -> str:
    """A URL as it may be shown: passwords stand before an `@`, or in the query."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "…" if set(url) & set("@?") else url
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
