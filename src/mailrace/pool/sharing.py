"""Which loop a limit belongs to that several pools share."""

import asyncio
from threading import Lock
from typing import Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from mailrace.errors import MisuseError
from mailrace.pool.allowance import Allowance

_LOOPS: Final[WeakKeyDictionary[Allowance, ReferenceType[asyncio.AbstractEventLoop]]] = (
    WeakKeyDictionary()
)
_LOCK: Final = Lock()


def bind(allowance: Allowance) -> None:
    """Keeps a limit to the running loop, as long as that is not closed.

    Two threads that took from it at the same time would break the limit, and nobody would see it.

    Raises:
        MisuseError: Another loop has it.
    """
    loop = asyncio.get_running_loop()
    with _LOCK:
        known = _LOOPS.get(allowance)
        first = None if known is None else known()
        if first is not None and first is not loop and not first.is_closed():
            raise MisuseError(
                "rate is an Allowance that pools of another event loop use",
                hint="give the pools of each loop an Allowance of their own, with its share",
            )
        _LOOPS[allowance] = ref(loop)
