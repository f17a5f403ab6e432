"""An SMTP server on loopback that does what a script says, and keeps what it saw."""

import asyncio
import base64
import contextlib
import re
import socket
import ssl
import struct
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self


class Stop(Enum):
    """Ways not to answer. CONFUSED is a reply that is no SMTP; LISTEN waits for a byte."""

    CLOSE = auto()
    RESET = auto()
    STALL = auto()
    CONFUSED = auto()
    LISTEN = auto()


Act = bytes | Stop | tuple[bytes | Stop, ...]

_GOOD = {
    "CONNECT": b"220 script.example ESMTP\r\n",
    "HELO": b"250 script.example\r\n",
    "STARTTLS": b"220 2.0.0 go ahead\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "BODY": b"250 2.0.0 taken\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
PLAIN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE 10000000")
CHUNKED = (*PLAIN, "CHUNKING")
STEPWISE = ("8BITMIME", "ENHANCEDSTATUSCODES")


class _StoppedError(Exception):
    pass


@dataclass(kw_only=True)
class Received:
    """A message of which every byte arrived."""

    sender: str
    recipients: list[str]
    content: bytes
    answer: bytes = b""


@dataclass(kw_only=True)
class ScriptServer:
    """Follows the protocol except where `on` says otherwise.

    Stages: CONNECT, EHLO, HELO, STARTTLS, AUTH, AUTH-RESPONSE, MAIL, RCPT, DATA, CONTENT (before
    content is read), BODY (after it was), RSET, QUIT.
    """

    extensions: tuple[str, ...] = PLAIN
    context: ssl.SSLContext | None = None
    implicit_tls: bool = False
    dribble: bool = False
    commands: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    credentials: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._acts: dict[str, deque[Act]] = defaultdict(deque)
        self._always: dict[str, Act] = {}
        self._reached: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.release = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def on(self, stage: str, *acts: Act) -> None:
        """The next times `stage` comes up, one act each; then as usual again."""
        self._acts[stage].extend(acts)

    def always(self, stage: str, act: Act) -> None:
        self._always[stage] = act

    async def reached(self, stage: str) -> None:
        """Waits until a conversation has come to `stage`."""
        async with asyncio.timeout(10):
            await self._reached[stage].wait()

    def forget(self) -> None:
        """Lets `reached` wait for what comes from now on."""
        self._reached.clear()

    @property
    def verbs(self) -> list[str]:
        return [command.split()[0] for command in self.commands]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self.context if self.implicit_tls else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            # In Python 3.11.2 a TLS transport that was closed twice cannot be aborted.
            with contextlib.suppress(AttributeError):
                writer.transport.abort()
        # Not wait_closed: asyncio forgets to end it where a TLS handshake failed.
        await asyncio.sleep(0)
        await self._server.wait_closed()

    async def disconnect_all(self) -> None:
        """Closes every connection politely and returns once they are gone."""
        tasks = tuple(self._tasks)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            await _Session(self, reader, writer).run()
        except (_StoppedError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the streams of asyncio log a cancelled handler
        finally:
            self._tasks.discard(task)
            writer.close()

    def act(self, stage: str) -> Act | None:
        self._reached[stage].set()
        if self._acts[stage]:
            return self._acts[stage].popleft()
        return self._always.get(stage)


class _Session:
    def __init__(
        self, server: ScriptServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.sender: str | None = None
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self.answer("CONNECT")
        while line := await self.reader.readline():
            command = line.decode().rstrip("\r\n")
            self.server.commands.append(command)
            verb = command.split(" ", 1)[0].upper()
            handler = getattr(self, f"on_{verb.lower()}", None)
            if handler is None:
                await self.say(b"500 5.5.2 what?\r\n")
            else:
                await handler(command)

    async def answer(self, stage: str, default: bytes | None = None) -> bytes:
        """Answers as scripted or as usual; returns what was answered."""
        act = self.server.act(stage)
        if act is None:
            act = _GOOD[stage] if default is None else default
        acts = act if isinstance(act, tuple) else (act,)
        for each in acts:
            await self.perform(each)
        return b"".join(each for each in acts if isinstance(each, bytes))

    async def perform(self, act: bytes | Stop) -> None:
        match act:
            case bytes():
                await self.say(act)
            case Stop.CLOSE:
                raise _StoppedError
            case Stop.RESET:
                linger = struct.pack("ii", 1, 0)
                sock = self.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.writer.transport.abort()
                raise _StoppedError
            case Stop.STALL:
                await self.server.release.wait()
            case Stop.LISTEN:
                await self.reader.readexactly(1)
            case Stop.CONFUSED:
                await self.say(b"\x00\xff\xfewhat is this\r\n")

    async def say(self, text: bytes) -> None:
        if self.server.dribble:
            for byte in text:
                self.writer.write(bytes([byte]))
                await self.writer.drain()
                await asyncio.sleep(0)
        else:
            self.writer.write(text)
            await self.writer.drain()

    async def on_ehlo(self, _: str) -> None:
        lines = ["script.example", *self.server.extensions]
        encrypted = self.writer.get_extra_info("ssl_object") is not None
        if self.server.context and not encrypted:
            lines.append("STARTTLS")
        text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
        await self.answer("EHLO", text.encode())

    async def on_helo(self, _: str) -> None:
        await self.answer("HELO")

    async def on_starttls(self, _: str) -> None:
        answer = await self.answer("STARTTLS")
        if answer.startswith(b"220"):
            assert self.server.context is not None
            await self.writer.start_tls(self.server.context)

    async def on_auth(self, command: str) -> None:
        _, mechanism, *first = command.split(" ", 2)
        self.server.credentials.extend(base64.b64decode(each) for each in first)
        challenges = {
            "LOGIN": [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"],
            "CRAM-MD5": [b"334 " + base64.b64encode(b"<1896.697170952@script.example>") + b"\r\n"],
        }.get(mechanism.upper(), [])
        for challenge in challenges:
            await self.say(challenge)
            line = await self.reader.readline()
            self.server.credentials.append(base64.b64decode(line.strip()))
        await self.answer("AUTH")

    async def on_rset(self, _: str) -> None:
        self.sender, self.recipients = None, []
        await self.answer("RSET")

    async def on_quit(self, _: str) -> None:
        await self.answer("QUIT")
        raise _StoppedError

    async def on_mail(self, command: str) -> None:
        if self.sender is not None:
            await self.say(b"503 5.5.1 nested MAIL\r\n")
            return
        if (await self.answer("MAIL")).startswith(b"2"):
            self.sender = _path(command)

    async def on_rcpt(self, command: str) -> None:
        if self.sender is None:
            await self.say(b"503 5.5.1 MAIL first\r\n")
            return
        if (await self.answer("RCPT")).startswith(b"2"):
            self.recipients.append(_path(command))

    async def on_data(self, _: str) -> None:
        if self.sender is None:
            await self.say(b"503 5.5.1 MAIL first\r\n")
            return
        if (await self.answer("DATA")).startswith(b"354"):
            await self.answer("CONTENT", b"")
            lines = []
            while (line := await self.reader.readuntil(b"\n")) != b".\r\n":
                lines.append(line.removeprefix(b"."))
            await self.take(b"".join(lines))

    async def on_bdat(self, command: str) -> None:
        size = int(command.split()[1])
        await self.answer("CONTENT", b"")
        content = await self.reader.readexactly(size)
        if not self.recipients:
            await self.say(b"503 5.5.1 RCPT first\r\n")
            return
        await self.take(content)

    async def take(self, content: bytes) -> None:
        assert self.sender is not None
        message = Received(sender=self.sender, recipients=self.recipients, content=content)
        self.sender, self.recipients = None, []
        if not message.recipients:
            await self.say(b"554 5.5.1 no valid recipients\r\n")
            return
        self.server.received.append(message)
        message.answer = await self.answer("BODY")


def _path(command: str) -> str:
    found = re.search(r"<(.*)>", command)
    assert found is not None
    return found[1]
