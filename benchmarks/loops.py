"""The event loop that all contestants in one process share: uvloop where it is installed."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes the loops of `asyncio.Runner`; `None` for asyncio's own."""
    if find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415 - an extra

    return uvloop.new_event_loop


def loop_name() -> str:
    """`uvloop` or `asyncio`."""
    return "asyncio" if loop_factory() is None else "uvloop"
