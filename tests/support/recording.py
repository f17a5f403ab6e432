"""An SMTP server in a thread that keeps count: who was written to, how often, and when."""

import asyncio
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_PATH = re.compile(rb"<([^>]*)>")
_MESSAGE_ID = re.compile(rb"^Message-ID: <([^>]+)>", re.MULTILINE | re.IGNORECASE)


@dataclass(slots=True)
class Recorded:
    """What the server took: by recipient, the Message-IDs in the order they came.

    `times` are monotonic seconds at which MAIL was read; both are written by the server's thread.
    """

    messages: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    times: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(map(len, self.messages.values()))


class RecordingServer:
    """Speaks SMTP with PIPELINING, and CHUNKING if asked; a context manager.

    Args:
        answer: The reply to RCPT for an address, by default 250.
        delay_s: How long each message's final reply takes.
        on_message: Called in the server's thread with the number taken so far, before the reply.
    """

    def __init__(
        self,
        *,
        chunking: bool = True,
        answer: Callable[[str], str] = lambda _: "250 2.1.5 ok",
        delay_s: float = 0.0,
        on_message: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.recorded = Recorded()
        self.chunking = chunking
        self.answer = answer
        self.delay_s = delay_s
        self.on_message = on_message
        self.port = 0
        self.connections_most = 0
        self._connections = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
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
        server = await asyncio.start_server(self._session, "127.0.0.1", 0, limit=1 << 22)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stopping.wait()
            # Sessions that are asked to dawdle: from Python 3.12 on a server waits for them.
            here = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not here]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        self.connections_most = max(self.connections_most, self._connections)
        try:
            writer.write(b"220 recording.test ESMTP\r\n")
            await _Conversation(self, reader, writer).talk()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= 1
            writer.close()


class _Conversation:
    def __init__(
        self, server: RecordingServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.recipients: list[str] = []

    async def talk(self) -> None:
        while line := await self.reader.readline():
            verb = line[:4].upper()
            if verb == b"QUIT":
                self.say("221 bye")
                await self.writer.drain()
                return
            if verb == b"BDAT":
                size = int(line.split()[1])
                await self.take(await self.reader.readexactly(size))
            elif verb == b"DATA":
                if not self.recipients:
                    self.say("554 no valid recipients")
                    continue
                self.say("354 go on")
                content = await self.reader.readuntil(b"\r\n.\r\n")
                await self.take(content[:-3].replace(b"\r\n..", b"\r\n."))
            else:
                self.command(verb, line)

    def command(self, verb: bytes, line: bytes) -> None:
        if verb == b"EHLO":
            extra = "250-CHUNKING\r\n" if self.server.chunking else ""
            self.say(f"250-recording.test\r\n250-PIPELINING\r\n{extra}250 ENHANCEDSTATUSCODES")
        elif verb == b"MAIL":
            self.server.recorded.times.append(time.monotonic())
            self.recipients = []
            self.say("250 2.1.0 ok")
        elif verb == b"RCPT":
            found = _PATH.search(line)
            assert found is not None
            address = found[1].decode()
            reply = self.server.answer(address)
            if reply.startswith("2"):
                self.recipients.append(address)
            self.say(reply)
        else:
            self.say("250 2.0.0 ok")

    async def take(self, content: bytes) -> None:
        if not self.recipients:
            self.say("554 5.5.1 no valid recipients")
            return
        found = _MESSAGE_ID.search(content)
        assert found is not None
        for address in self.recipients:
            self.server.recorded.messages[address].append(found[1].decode())
        self.recipients = []
        self.server.on_message(self.server.recorded.total)
        if self.server.delay_s:
            await asyncio.sleep(self.server.delay_s)
        self.say("250 2.0.0 taken")

    def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\r\n")
