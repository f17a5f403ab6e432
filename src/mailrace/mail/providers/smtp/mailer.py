"""The mailer of SMTP providers."""

from types import TracebackType
from typing import Final, Self

from mailrace.clock import Clock, SystemClock
from mailrace.mail.message import Answer, Gate, Message
from mailrace.mail.providers.smtp.envelope import check
from mailrace.mail.providers.smtp.failures import LostError, UnusedError
from mailrace.mail.providers.smtp.pool import Pool
from mailrace.mail.providers.smtp.settings import SmtpSettings

# A permit is for now: messages that wait for connections longer than this would depart together.
_PERMIT_KEEPS_S: Final = 1.0


class SmtpMailer:
    """Sends over kept connections to one SMTP server; the `Mailer` of `mailrace.mail.message`.

    It opens a connection a concurrent `send`, up to `settings.connections`, and belongs to the
    event loop it is first used in. A message is never repeated once the far side may have it:
    then its answers are `None`.
    """

    def __init__(self, settings: SmtpSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._pool = Pool(settings, self._clock)

    @property
    def settings(self) -> SmtpSettings:
        return self._settings

    async def send(self, message: Message, gate: Gate) -> tuple[Answer, ...]:
        """Hands one message over and returns one answer a recipient, in their order.

        If a connection that has waited proves dead before the far side can have the message, it is
        tried once more on a fresh one. A message that the server's EHLO says it cannot take (too
        large, 8-bit, SMTPUTF8) is answered without being sent.

        Raises:
            MisuseError: An address or the content must not be sent as it is; or closed already.
            UnavailableError: The server cannot be reached or let go of us; it has not got the
                message.
            RejectedError: The server refuses us rather than the message.
        """
        check(message)
        connection = self._pool.take() or await self._pool.acquire()
        try:
            try:
                return await connection.transact(message, gate)
            except UnusedError:
                pass  # it ended while the limit was waited for, which it does at a slow one
            except LostError:
                if not connection.kept:
                    raise
                await gate.permit()
            began_s = self._clock.monotonic_s()
            connection = await self._pool.open()
            in_time = self._clock.monotonic_s() - began_s <= _PERMIT_KEEPS_S
            try:
                return await connection.transact(message, gate, permitted=in_time)
            except UnusedError:
                # Not a third permit, or a server slow to greet and quick to close starves us.
                connection = await self._pool.open()
                return await connection.transact(message, gate, permitted=True)
        finally:
            self._pool.give_back(connection)

    async def close(self) -> None:
        """Says QUIT on every connection, cuts those still busy after two seconds; idempotent."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
