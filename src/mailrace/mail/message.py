"""A message ready to go, and what the far side said to it: the values that mailers share."""

from enum import StrEnum
from typing import Protocol

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One mail as it goes over the wire.

    Attributes:
        sender: Reverse-path without angle brackets; empty for the null path `<>`.
        recipients: Forward-paths without angle brackets, at least one. Domains are A-labels; a
            local part may be non-ASCII only when `smtputf8` is true.
        content: The whole message, headers and body: CRLF line ends everywhere, no bare CR or LF,
            ends with CRLF, no line over 998 octets, not dot-stuffed, no Bcc.
        smtputf8: Whether the envelope or the headers need SMTPUTF8 (RFC 6531).
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    smtputf8: bool = False


class Stage(StrEnum):
    """Where in the conversation an answer was given."""

    COMPOSE = "compose"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One SMTP reply (RFC 5321 section 4.2); an HTTP mailer maps its answers to the same shape.

    Attributes:
        code: Three digits; 0 where no reply came from the far side.
        enhanced: Enhanced status code such as `5.1.1` (RFC 3463), or empty.
        text: The reply's text without codes, lines joined by a space, control characters replaced.
    """

    code: int
    enhanced: str
    text: str


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the far side said for one recipient.

    Attributes:
        stage: The step at which this recipient's fate was settled.
        reply: Its reply, or `None`: the message was handed over and no reply came, so nobody
            knows. `None` is only ever seen with stage `BODY`.
    """

    stage: Stage
    reply: Reply | None


class Gate(Protocol):
    """What a mailer passes through on the way out; the caller's rate limit and its journal."""

    async def permit(self) -> None:
        """Waits until the limit allows the message out, which is to follow at once.

        Called with a connection in hand. If that ends during the wait, a new one is opened under
        the same permit; another is asked for only where opening took longer than a second, and
        for a second try after a command of the message was written.
        """

    def commit(self) -> None:
        """Called synchronously right before the bytes are written after which the far side may
        take the message (the final dot, `BDAT … LAST`). If it raises, they are not written.
        """


class Mailer(Protocol):
    """Our code for a provider. Conformance: `tests/mail/providers/test_conformance.py`."""

    async def send(self, message: Message, gate: Gate) -> tuple[Answer, ...]:
        """Hands one message over and returns one answer a recipient, in their order.

        Raises:
            UnavailableError: No conversation could be had (connect, greeting, TLS, 421 …). The far
                side has not got the message; it is safe to send it again.
            RejectedError: The provider refuses us rather than the message (credentials,
                certificate). Safe to send again once a person has mended it.
        """
        ...

    async def close(self) -> None:
        """Ends kept connections politely, within a few seconds. Idempotent."""
        ...
