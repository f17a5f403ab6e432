"""Messages a second of the SMTP client alone, over 20 connections, ready-made bytes of 2 KB.

Beside it in the same run: a bare pipelined conversation, which is the limit; `smtp-source`, which
is C but waits for each reply; aiosmtplib with the same bytes, and with an `EmailMessage` built for
each message as programs usually do.
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import aiosmtplib
from loops import LOOPS, default_loop, loop_factory
from sinks import program, smtp_sink
from stats import Figure, figure, interleaved, table

from mailrace.mail.message import Message
from mailrace.mail.providers.smtp import SmtpMailer, parse_smtp_url

CONNECTIONS = 20
HOST = "127.0.0.1"
SENDER = "ann@example.com"
_LINE = "The wheel turns as long as there is water in the race, and not longer. "
_HEAD = (
    f"From: Ann <{SENDER}>\r\nTo: you@example.net\r\nSubject: The wheel turns\r\n"
    "Message-ID: <0123456789abcdef@example.com>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
)
_SIZE_BYTES = 2048
_LIMIT_S = 120
BODY = (_LINE + "\r\n") * 40
CONTENT = (_HEAD + BODY)[: _SIZE_BYTES - 2].rstrip("\r\n").encode() + b"\r\n"

Run = Callable[[int, Iterator[int]], Coroutine[Any, Any, None]]


class OpenGate:
    """Lets every message out at once and keeps no journal."""

    async def permit(self) -> None:
        return

    def commit(self) -> None:
        return


async def ours(port: int, numbers: Iterator[int]) -> None:
    gate = OpenGate()

    async with SmtpMailer(parse_smtp_url(f"smtp://{HOST}:{port}?messages=1000000")) as mailer:

        async def worker() -> None:
            for number in numbers:
                message = Message(
                    sender=SENDER, recipients=(f"u{number}@example.net",), content=CONTENT
                )
                (answer,) = await mailer.send(message, gate)
                if answer.reply is None or answer.reply.code != 250:
                    raise RuntimeError(f"the sink did not take a message: {answer}")

        await _workers(worker)


async def aiosmtplib_with_bytes(port: int, numbers: Iterator[int]) -> None:
    async def worker() -> None:
        async with aiosmtplib.SMTP(hostname=HOST, port=port, start_tls=False) as client:
            for number in numbers:
                await client.sendmail(SENDER, [f"u{number}@example.net"], CONTENT)

    await _workers(worker)


async def aiosmtplib_with_email_message(port: int, numbers: Iterator[int]) -> None:
    body = BODY.replace("\r\n", "\n")[: _SIZE_BYTES - len(_HEAD)]

    async def worker() -> None:
        async with aiosmtplib.SMTP(hostname=HOST, port=port, start_tls=False) as client:
            for number in numbers:
                message = EmailMessage()
                message["From"] = f"Ann <{SENDER}>"
                message["To"] = f"u{number}@example.net"
                message["Subject"] = f"The wheel turns, {number}"
                message.set_content(body)
                await client.send_message(message)

    await _workers(worker)


async def limit(port: int, numbers: Iterator[int]) -> None:
    loop = asyncio.get_running_loop()

    async def worker() -> None:
        _, bare = await loop.create_connection(lambda: Bare(numbers), HOST, port)
        await bare.done

    await _workers(worker)


class Bare(asyncio.Protocol):
    """The shape of the work and nothing else: counts lines, believes every reply, minds no error.

    MAIL, RCPT and DATA go in one write, the message in the next.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._awaited = 0
        self._step = self._greeted
        self._said = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._awaited = 1

    def data_received(self, data: bytes) -> None:
        self._said += data
        self._awaited -= data.count(b"\n")
        if self._awaited <= 0:
            self._step()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the sink hung up"))

    def _greeted(self) -> None:
        self._write(b"EHLO bench\r\n", 1, self._met)

    def _met(self) -> None:
        # The reply to EHLO is the only one of several lines; the last has a space after its code.
        if self._said.splitlines()[-1][3:4] == b" ":
            self._next()

    def _next(self) -> None:
        self._said = b""
        number = next(self._numbers, None)
        if number is None:
            self.done.set_result(None)
            self._transport.close()
            return
        envelope = b"MAIL FROM:<%b>\r\nRCPT TO:<u%d@example.net>\r\nDATA\r\n"
        self._write(envelope % (SENDER.encode(), number), 3, self._accepted)

    def _accepted(self) -> None:
        self._write(CONTENT + b".\r\n", 1, self._next)

    def _write(self, data: bytes, replies: int, then: Callable[[], None]) -> None:
        self._awaited = replies
        self._step = then
        self._transport.write(data)


async def _workers(worker: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(_LIMIT_S), asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(worker())


def rate(run: Run, port: int, messages: int, loop: str) -> float:
    """Messages a second of one contestant, connections and all."""
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        begin = time.perf_counter()
        runner.run(run(port, iter(range(messages))))
        return messages / (time.perf_counter() - begin)


def rate_of_smtp_source(port: int, messages: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder, "message")
        content.write_bytes(CONTENT.replace(b"\r\n", b"\n"))
        sessions = ["-s", str(CONNECTIONS), "-m", str(messages), "-d", "-N"]
        envelope = ["-f", SENDER, "-t", "you@example.net", "-F", str(content)]
        command = [program("smtp-source"), *sessions, *envelope, f"inet:{HOST}:{port}"]
        begin = time.perf_counter()
        subprocess.run(command, check=True, timeout=_LIMIT_S)
        return messages / (time.perf_counter() - begin)


def measure(*, runs: int = 5, messages: int = 20_000, loop: str) -> list[Figure]:
    """Five contestants in turn. The slow ones send fewer messages, for as long a time."""
    with smtp_sink() as port:
        values = interleaved(
            {
                "ours": lambda: rate(ours, port, messages, loop),
                "limit": lambda: rate(limit, port, messages, loop),
                "source": lambda: rate_of_smtp_source(port, messages),
                "bytes": lambda: rate(aiosmtplib_with_bytes, port, messages // 5, loop),
                "email": lambda: rate(aiosmtplib_with_email_message, port, messages // 20, loop),
            },
            runs,
        )
    unit = "messages/s"
    bytes_beside = "aiosmtplib, same bytes"
    return [
        figure("SMTP client", values["ours"], unit, beside=(bytes_beside, values["bytes"]), mark=5),
        figure("SMTP client", values["ours"], unit, beside=("bare pipelining", values["limit"])),
        figure("SMTP client", values["ours"], unit, beside=("smtp-source", values["source"])),
        figure(
            "SMTP client",
            values["ours"],
            unit,
            beside=("aiosmtplib, EmailMessage", values["email"]),
        ),
        figure("bare pipelining, the limit", values["limit"], unit),
        figure("smtp-source", values["source"], unit),
        figure("aiosmtplib, same bytes", values["bytes"], unit),
        figure("aiosmtplib, EmailMessage", values["email"], unit),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--loop", choices=LOOPS, default=default_loop())
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
