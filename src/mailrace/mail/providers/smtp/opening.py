"""From settings to a connection that takes messages."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec

from mailrace.clock import Clock
from mailrace.errors import MisuseError
from mailrace.mail.providers.smtp.buffered import BufferedConnection
from mailrace.mail.providers.smtp.connection import Connection
from mailrace.mail.providers.smtp.failures import unreachable
from mailrace.mail.providers.smtp.handshake import Handshake, Signal
from mailrace.mail.providers.smtp.settings import SmtpSettings, Tls


class _TlsError(Exception):
    """The TLS handshake after STARTTLS failed, with `__cause__`; nothing else was sent."""


def tls_context(settings: SmtpSettings) -> ssl.SSLContext | None:
    """The TLS settings of an account; `None` where TLS is off.

    Raises:
        MisuseError: The file with the authorities cannot be read.
    """
    if settings.tls is Tls.OFF:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable(settings.ca_file, error) from None
    if not settings.checks_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unreadable(file: Path | None, error: OSError) -> MisuseError:
    reason = error.strerror or str(error)
    return MisuseError(
        f"cannot read certificates from {file}: {reason}", hint="ca names a PEM file"
    )


async def open_connection(
    settings: SmtpSettings,
    context: ssl.SSLContext | None,
    clock: Clock,
    on_lost: Callable[[Connection], None],
) -> Connection:
    """Connects and goes through EHLO, STARTTLS and AUTH.

    Where TLS is opportunistic and its handshake fails, it connects again and does without.

    Raises:
        UnavailableError: The server cannot be reached, is busy or talks nonsense.
        RejectedError: It refuses us, or its certificate is wrong.
    """
    opening = _Opening(settings, context, clock, on_lost)
    try:
        try:
            return await opening.open(settings.tls)
        except _TlsError as error:
            cause = error.__cause__
            if settings.tls is not Tls.OPPORTUNISTIC or isinstance(
                cause, ssl.SSLCertVerificationError
            ):
                raise cause or error from None
            return await opening.open(Tls.OFF)
    except OSError as error:
        raise unreachable(settings, error) from error


class _Opening:
    def __init__(
        self,
        settings: SmtpSettings,
        context: ssl.SSLContext | None,
        clock: Clock,
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._settings = settings
        self._context = context
        self._clock = clock
        self._on_lost = on_lost

    async def open(self, tls: Tls) -> Connection:
        connection = await self._connect(tls)
        try:
            await self._shake_hands(connection, tls)
        except BaseException:
            connection.abort("the session could not be set up")
            raise
        return connection

    async def _connect(self, tls: Tls) -> Connection:
        settings = self._settings
        implicit = tls is Tls.IMPLICIT
        loop = asyncio.get_running_loop()
        kind = BufferedConnection if isinstance(loop, asyncio.BaseEventLoop) else Connection
        async with asyncio.timeout(settings.timeouts.connect_s):
            _, connection = await loop.create_connection(
                lambda: kind(settings, self._clock, self._on_lost),
                settings.host,
                settings.port,
                ssl=self._context if implicit else None,
                server_hostname=settings.host if implicit else None,
            )
        return connection

    async def _shake_hands(self, connection: Connection, tls: Tls) -> None:
        timeouts = self._settings.timeouts
        handshake = Handshake(
            self._settings,
            connection.machine,
            hello=self._settings.hello or own_name(connection.local_address),
            encrypted=tls is Tls.IMPLICIT,
            tls=tls,
        )
        timeout_s = timeouts.greeting_s
        while (action := handshake.receive(*await connection.reply(timeout_s))) is not Signal.READY:
            timeout_s = timeouts.command_s
            if isinstance(action, Signal):
                await self._start_tls(connection)
                action = handshake.say_hello()
            connection.write(action)
        connection.check_silence()
        connection.extensions = msgspec.structs.replace(
            handshake.extensions,
            pipelining=handshake.extensions.pipelining and self._settings.pipelining,
            chunking=handshake.extensions.chunking and self._settings.chunking,
        )

    async def _start_tls(self, connection: Connection) -> None:
        assert self._context is not None
        try:
            await connection.start_tls(self._context, self._settings.timeouts.connect_s)
        except OSError as error:
            raise _TlsError from error


def own_name(local_address: str) -> str:
    """The machine's name for EHLO: a full one, else the address it speaks from (RFC 5321 4.1.4).

    The resolver is not asked, because where a name has no dot it would only be asked for long.
    """
    name = socket.gethostname()
    if "." in name.strip(".") and name.isascii():
        return name.rstrip(".")
    address = ipaddress.ip_address(local_address.partition("%")[0])
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
