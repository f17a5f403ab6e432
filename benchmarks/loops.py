"""The event loop that all contestants in one process share: uvloop where it is installed."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec

LOOPS = ("uvloop", "asyncio")


def default_loop() -> str:
    """`uvloop` where it is installed, as the command does it, else `asyncio`."""
    return "asyncio" if find_spec("uvloop") is None else "uvloop"


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the loops of `asyncio.Runner`.

    Args:
        name: One of `LOOPS`.
    """
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - an extra

    return uvloop.new_event_loop
