"""The connection as asyncio's own event loop does it best."""

import asyncio
from collections.abc import Callable
from typing import Final

from mailrace.clock import Clock
from mailrace.mail.providers.smtp.connection import Connection
from mailrace.mail.providers.smtp.settings import SmtpSettings

# A reply or a group of them. A plain Protocol would have asyncio allocate 256 KiB for every read,
# which takes several times as long as the read (the SMTP benchmark).
_BUFFER_BYTES: Final = 4096


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """The same for asyncio's own event loop.

    It allocates 256 KiB for each read of a plain protocol, which costs more than all else that is
    done with a reply (`benchmarks/bench_smtp.py --loop asyncio`); uvloop is faster with that one.
    """

    def __init__(
        self, settings: SmtpSettings, clock: Clock, on_lost: Callable[[Connection], None]
    ) -> None:
        super().__init__(settings, clock, on_lost)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))
