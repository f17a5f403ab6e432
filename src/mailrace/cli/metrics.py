"""`--metrics`: the numbers of the store over HTTP, from the process that watches."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from mailrace.cli.logs import Say
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool.extras import load
from mailrace.queue.exporting import HOST, QueueExporter, StoreUnread
from mailrace.queue.store import Store

_HOW: Final = "give a port or an address: 9464, 0.0.0.0:9464, [::1]:9464"


class Address(NamedTuple):
    """Where metrics are served."""

    host: str
    port: int


def address(text: str) -> Address:
    """Reads `[HOST:]PORT`; without a host only this machine may ask.

    Raises:
        MisuseError: It is none, or the library is not installed.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise MisuseError(f"--metrics is {text!r}", hint=_HOW)
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535 or (colon and not host):
        raise MisuseError(f"--metrics is {text!r}", hint=_HOW)
    load("prometheus_client", extra="prometheus")
    return Address(host or HOST, int(port))


@contextlib.asynccontextmanager
async def serving(where: Address | None, store: Store, say: Say) -> AsyncIterator[None]:
    """Serves metrics during the block, if that is wanted."""
    if where is None:
        yield
        return
    events = Events()
    events.follow(
        StoreUnread,
        lambda event: say(
            "no metrics: the store cannot be read",
            problem=str(event.error) or type(event.error).__name__,
        ),
    )
    async with QueueExporter(store, host=where.host, port=where.port, events=events) as exporter:
        say("serving metrics", url=exporter.url)
        yield
