"""One kept connection: an asyncio protocol around the sans-IO parts."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from mailrace.clock import Clock
from mailrace.mail.message import Answer, Gate, Message, Stage
from mailrace.mail.providers.smtp.envelope import parameters
from mailrace.mail.providers.smtp.extensions import Extensions
from mailrace.mail.providers.smtp.failures import LostError, UnusedError, check_welcome, shown
from mailrace.mail.providers.smtp.replies import GarbledError, ReplyParser, to_reply
from mailrace.mail.providers.smtp.settings import SmtpSettings
from mailrace.mail.providers.smtp.states import Machine, State, Step
from mailrace.mail.providers.smtp.transaction import Form, Move, Transaction

# Content goes out in blocks of this size, the transport's high-water mark: what is lost before
# the last block was never complete at the far side and may safely be sent again.
BLOCK_BYTES: Final = 65_536

# Everything in one write is only for a connection on which the server was heard this recently.
# It bounds how long a silently dead connection (server restarted, NAT entry gone) can look alive;
# a message written into one would be uncertain. At any useful rate a connection is busier than it.
HEARD_WITHIN_S: Final = 1.0

_DOTTED: Final = re.compile(rb"\r\n\.").search  # twice as fast as `in`
_OUT_OF_TURN: Final = "the server spoke out of turn"
# Globals, because an enum's member costs five times as much to look up (see transaction.py).
_READY, _CLOSED = State.READY, State.CLOSED
_AT_ONCE, _GROUPED = Form.AT_ONCE, Form.GROUPED
_WAIT, _DONE, _CONTENT = Move.WAIT, Move.DONE, Move.CONTENT
_MAIL = Stage.MAIL


class Connection(asyncio.Protocol):
    """A conversation with one server.

    Attributes:
        machine: Its state.
        extensions: What the server offers, less what the settings forbid.
        kept: Whether it has waited, in the pool or for a permit, and may have died unnoticed.
        sent: Messages that were tried on it.
        due_s: When, by the clock, `expire` is to be called. A number moved along by every step and
            looked at by one timer of the pool, because a timer a command costs more than the parse.
    """

    def __init__(
        self, settings: SmtpSettings, clock: Clock, on_lost: Callable[["Connection"], None]
    ) -> None:
        self.machine = Machine()
        self.extensions = Extensions()
        self.kept = False
        self.sent = 0
        self.due_s = float("inf")
        self._settings = settings
        self._idle_s = settings.idle_s
        self._timeouts = timeouts = settings.timeouts
        self._patience_s = {
            Stage.MAIL: timeouts.mail_s,
            Stage.RCPT: timeouts.rcpt_s,
            Stage.DATA: timeouts.data_s,
            Stage.BODY: timeouts.final_s,
        }
        self._now_s = clock.monotonic_s
        self._on_lost = on_lost
        self._parser = ReplyParser()
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport
        self._transaction: Transaction | None = None
        self._waiter: asyncio.Future[tuple[Answer, ...]]
        self._gate: Gate
        self._content = b""
        self._offset = 0
        self._blocked = False  # the transport's buffer is full
        self._proven = False  # the server has taken a message on this connection
        self._dirty = False  # the server may still hold a transaction: RSET first
        self._heard_s = float("-inf")
        self._gone = False
        self._reason = "the connection is closing"

    @property
    def usable(self) -> bool:
        """Whether a message may begin."""
        return self.machine.state is _READY and not self._transport.is_closing()

    @property
    def local_address(self) -> str:
        return str(self._transport.get_extra_info("sockname")[0])

    # The handshake's side: a reply at a time, awaited.

    async def reply(self, timeout_s: float) -> tuple[int, bytes]:
        """The next reply.

        Raises:
            LostError: The connection ended, or what came was not SMTP.
            TimeoutError: It did not come in time.
        """
        if not self._inbox:
            self._check_alive()
            self._reader = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(timeout_s):
                await self._reader
        return self._inbox.popleft()

    def write(self, command: bytes) -> None:
        """Writes a command whose reply will be asked for.

        Raises:
            LostError: The connection ended, or the server has said more than it was asked for.
        """
        self.check_silence()
        self._transport.write(command)

    def check_silence(self) -> None:
        """Makes sure that the server waits for us.

        Bytes behind the 220 to STARTTLS would otherwise pass as said under TLS (CVE-2011-0411).
        """
        if self._inbox or self._parser.pending:
            self.abort(_OUT_OF_TURN)
        self._check_alive()

    async def start_tls(self, context: ssl.SSLContext, timeout_s: float) -> None:
        """Puts TLS over the connection; raises what asyncio raises."""
        self.check_silence()
        transport = await asyncio.get_running_loop().start_tls(
            self._transport,
            self,
            context,
            server_hostname=self._settings.host,
            ssl_handshake_timeout=timeout_s,
        )
        if transport is None:
            raise ConnectionAbortedError("connection lost in the TLS handshake")
        self._transport = transport

    # The messages' side: one future a message, everything else in callbacks.

    async def transact(
        self, message: Message, gate: Gate, *, permitted: bool = False
    ) -> tuple[Answer, ...]:
        """Sends one message, if the server can take it, and returns its answers.

        Cancelled once the gate has permitted it, or with `gate.commit` raising, it closes the
        connection.

        Args:
            message: Checked before.
            gate: Asked for a permit unless `permitted` says that there is one to use.

        Raises:
            UnusedError: The connection ended before the message began; the permit is still good.
            LostError: The connection ended and the far side has not got the message.
            RejectedError: The server takes no mail from us.
        """
        extras = parameters(message, self.extensions)
        if not isinstance(extras, str):
            return extras
        if not permitted:
            await gate.permit()
        if not self.usable:
            raise UnusedError(self._ending)
        self._begin(message, extras, gate)
        try:
            answers = await self._waiter
        except asyncio.CancelledError:
            self.abort("the send was cancelled")
            raise
        if answers[0].stage is _MAIL:
            check_welcome(self._settings, answers[0])
        return answers

    def _begin(self, message: Message, extras: str, gate: Gate) -> None:
        content = message.content
        chunked = self.extensions.chunking
        now_s = self._now_s()
        self.kept = self.kept or now_s - self._heard_s > HEARD_WITHIN_S
        form = self._form(len(content), now_s)
        transaction = Transaction(
            message,
            extras,
            self.machine,
            form=form,
            chunked=chunked,
            reset=self._dirty,
            kept=self.kept,
        )
        self.sent += 1
        self._gate = gate
        self._content = content if chunked else stuffed(content)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transaction = transaction
        commands = transaction.commands()
        if form is _AT_ONCE:
            self._write_end(transaction, commands + transaction.head + content)
        else:
            self._transport.write(commands)
            self.due_s = now_s + self._timeouts.mail_s

    def _form(self, size_bytes: int, now_s: float) -> Form:
        offered = self.extensions
        if not offered.pipelining:
            return Form.STEPS
        at_once = (
            offered.chunking
            and self._proven
            and now_s - self._heard_s <= HEARD_WITHIN_S
            and size_bytes <= BLOCK_BYTES
        )
        return _AT_ONCE if at_once else _GROUPED

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._now_s()
        try:
            replies = self._parser.feed(data)
            if self._transaction is not None:
                self._converse(self._transaction, replies)
            else:
                self._take(replies)
        except GarbledError as error:
            self.abort(str(error))

    def _converse(self, transaction: Transaction, replies: list[tuple[int, bytes]]) -> None:
        left = len(replies)
        for code, text in replies:
            left -= 1
            move = transaction.receive(code, text)
            if move is _WAIT:
                continue
            if left or self._parser.pending:
                if move is not _CONTENT and move is not Move.SEND:
                    self._follow(transaction, move)
                raise GarbledError(_OUT_OF_TURN)
            self._follow(transaction, move)
            return
        if replies:
            self.due_s = self._heard_s + self._patience_s[transaction.stage]

    def _follow(self, transaction: Transaction, move: Move) -> None:
        if move is _DONE:
            self._dirty = transaction.dirty
            self._proven = self._proven or transaction.taken
            self._settle(transaction.answers())
        elif move is _CONTENT:
            self._write_content(transaction)
        elif move is Move.SEND:
            self._transport.write(transaction.commands())
            self.due_s = self._heard_s + self._patience_s[transaction.stage]
        elif move is Move.CLOSE:
            self._settle(transaction.answers())
            self.abort("the server is closing")
        else:
            self.abort(shown(transaction.refusal) if transaction.refusal else "")

    def _write_content(self, transaction: Transaction) -> None:
        if len(self._content) <= BLOCK_BYTES:
            self._write_end(transaction, transaction.head + self._content)
            return
        transaction.begin_content()
        self._offset = 0
        self._transport.write(transaction.head)
        self._write_blocks(transaction)

    def _write_blocks(self, transaction: Transaction) -> None:
        """Writes as much as the transport takes; the last block passes the gate."""
        while not self._blocked and not self._waiter.done():
            start, self._offset = self._offset, self._offset + BLOCK_BYTES
            block = self._content[start : self._offset]
            if self._offset >= len(self._content):
                self._write_end(transaction, block)
                return
            self._transport.write(block)
        self.due_s = self._now_s() + self._timeouts.block_s

    def _write_end(self, transaction: Transaction, data: bytes) -> None:
        if self._waiter.done():  # cancelled, and the caller has not woken up yet
            return
        try:
            self._gate.commit()
        except Exception as error:  # noqa: BLE001 - the caller's, who waits in another frame
            self._waiter.set_exception(error)
            self.abort("the gate did not let the message out")
            return
        transaction.end_content()
        self._transport.write(data)
        self.due_s = self._now_s() + self._timeouts.final_s

    def _settle(self, answers: tuple[Answer, ...]) -> None:
        self._transaction = None
        self._content = b""
        if not self._waiter.done():
            self._waiter.set_result(answers)

    # Between messages, and the end.

    def rest(self) -> None:
        """Begins to wait for the next message."""
        self.kept = True
        self.due_s = self._heard_s + self._idle_s

    def take_up(self) -> None:
        """Ends the wait: from here on its holder decides how long it may stay silent."""
        self.due_s = float("inf")

    def quit(self) -> None:
        """Takes leave without making anybody wait for the answer."""
        if not self.usable:
            self.abort("closed")
            return
        self.machine.take(Step.SEND_QUIT)
        self._transport.write(b"QUIT\r\n")
        self.due_s = self._now_s() + self._timeouts.quit_s

    def expire(self) -> None:
        """What was due did not happen: an answer, a message to send, or the end."""
        if self.machine.state is _READY:
            self.quit()
        elif self._transaction is not None:
            self.abort(f"no answer in time at stage {self._transaction.stage}")
        else:
            self.abort("no answer to QUIT")

    def abort(self, reason: str) -> None:
        """Ends the connection at once; whoever waits on it hears `reason`."""
        self._end(reason)
        self._transport.abort()

    def _take(self, replies: list[tuple[int, bytes]]) -> None:
        match self.machine.state:
            case State.CLOSED:
                pass
            case State.QUIT:
                self._transport.close()
            case State.READY:
                code, text = replies[0] if replies else (0, b"")
                self.abort(shown(to_reply(code, text)) if code == 421 else _OUT_OF_TURN)
            case _:
                self._inbox.extend(replies)
                if self._inbox and self._reader is not None and not self._reader.done():
                    self._reader.set_result(None)

    def _check_alive(self) -> None:
        if self._gone or self._transport.is_closing():
            raise self._lost()

    @property
    def _ending(self) -> str:
        return f"lost the connection to {self._settings.address}: {self._reason}"

    def _lost(self) -> LostError:
        return LostError(self._ending)

    def _end(self, reason: str) -> None:
        if not self._gone:
            self._gone = True
            self._reason = reason
            if self._inbox:
                return  # a refusal with the end right behind it is still to be read
        if self.machine.state is _CLOSED:
            return
        self.machine.take(Step.LOSE)
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(self._lost())
        if self._transaction is not None:
            answers = self._transaction.lost()
            if answers is None and not self._waiter.done():
                self._waiter.set_exception(self._lost())
            self._settle(answers or ())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def eof_received(self) -> None:
        self._end("the server closed it")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the server closed it")
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._transaction is not None and self.machine.state is State.CONTENT:
            self._write_blocks(self._transaction)


def stuffed(content: bytes) -> bytes:
    """Content as DATA wants it: leading dots doubled, the final dot added (RFC 5321 4.5.2)."""
    if _DOTTED(content):
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content + b".\r\n" if content.startswith(b".") else content + b".\r\n"
