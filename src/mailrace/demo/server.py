"""A real SMTP server on loopback, in a thread of its own, that keeps what it gets."""

import asyncio
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session

_NAME = "demo.mailrace.test"


class DemoServer:
    """Accepts everything and writes each message to a file; a context manager.

    Attributes:
        received: Recipients, and how often each was written to.
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received: Counter[str] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="mailrace-demo-server")

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Keeps a message (called by aiosmtpd)."""
        del server, session
        content = envelope.content
        assert isinstance(content, bytes)
        self.received.update(envelope.rcpt_tos)
        number = self.received.total()
        (self.folder / f"{number:04}.eml").write_bytes(content)
        return f"250 2.0.0 kept as {number:04}.eml"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await self._loop.create_server(
            lambda: SMTP(self, hostname=_NAME, ident="Mailrace demo", enable_SMTPUTF8=True),
            "127.0.0.1",
            0,
        )
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        try:
            await self._stopping.wait()
        finally:
            server.close()  # not waiting for sessions that nobody ended
