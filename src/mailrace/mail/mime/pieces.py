"""The pieces of a message that differ from recipient to recipient.

A compiled message is a list of pieces: bytes that are the same for everyone, and objects with
`write`, which append what they make for one recipient.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

from mailrace.errors import MisuseError
from mailrace.mail.addresses import parse_mailbox
from mailrace.mail.controls import check_controls, shortened
from mailrace.mail.encoding import (
    base64_lines,
    clean_text,
    join_chunks,
    quoted_printable_chunk,
    suits_base64,
)
from mailrace.mail.headernames import has_phrase
from mailrace.mail.headers import encode_mailbox, encode_structured, encode_unstructured
from mailrace.mail.templates import CompiledTemplate

Write = Callable[[bytes], object]

# RFC 3986 characters only, before the @ of an address those of RFC 6068 without the comma, which
# parts two addresses. 900 keeps the line under 998 whatever stands before.
_URL: Final = re.compile(
    r"(?:https?://[A-Za-z0-9\[]|mailto:[A-Za-z0-9\-._~!$'*+%]+@[A-Za-z0-9\[])"
    r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*",
    re.IGNORECASE,
).fullmatch
_URL_LIMIT: Final = 900


class Piece(Protocol):
    """Something that is made anew for every recipient."""

    @property
    def template(self) -> CompiledTemplate: ...

    def write(self, names: dict[str, Any], write: Write) -> None:
        """Appends the bytes for one recipient, whole lines.

        Args:
            names: Template globals and the recipient's variables. Not changed.
            write: Takes bytes, for example `list.append`.
        """
        ...


class QuotedPrintableText:
    """A text body whose constant pieces were encoded once.

    What this is for: the figure of `benchmarks/bench_mime.py`.
    """

    def __init__(self, template: CompiledTemplate) -> None:
        self.template = template
        self._encoded = {
            constant: quoted_printable_chunk(constant) for constant in template.constants
        }

    def write(self, names: dict[str, Any], write: Write) -> None:
        known = self._encoded
        join_chunks(
            [
                known.get(piece) or quoted_printable_chunk(piece)
                for piece in self.template.pieces(names)
                if piece
            ],
            write,
        )


class Base64Text:
    """A text body for scripts in which most octets would need quoting."""

    def __init__(self, template: CompiledTemplate) -> None:
        self.template = template

    def write(self, names: dict[str, Any], write: Write) -> None:
        text = "".join(map(clean_text, self.template.pieces(names)))
        ended = text if not text or text.endswith("\n") else f"{text}\n"
        write(base64_lines(ended.replace("\n", "\r\n").encode()))


class UnstructuredHeader:
    """A header of free text: Subject, and most of what the caller adds."""

    def __init__(self, name: str, template: CompiledTemplate) -> None:
        self.template = template
        self._name = name

    def write(self, names: dict[str, Any], write: Write) -> None:
        write(encode_unstructured(self._name, "".join(self.template.pieces(names))))


class StructuredHeader:
    """A header with a grammar of its own: List-Id, References and others."""

    def __init__(self, name: str, template: CompiledTemplate) -> None:
        self.template = template
        self._name = name
        self._phrase = has_phrase(name)

    def write(self, names: dict[str, Any], write: Write) -> None:
        text = "".join(self.template.pieces(names))
        write(encode_structured(self._name, text, phrase=self._phrase))


class ReplyToHeader:
    """The Reply-To header; left out for a recipient for whom it comes out empty."""

    def __init__(self, template: CompiledTemplate) -> None:
        self.template = template

    def write(self, names: dict[str, Any], write: Write) -> None:
        text = "".join(self.template.pieces(names))
        if text.strip(" "):
            mailbox = parse_mailbox(text)
            if mailbox.needs_smtputf8:
                raise MisuseError(
                    f"{shortened(text)} has a local part that is not ASCII",
                    hint="few servers would take the message; answer to another address",
                )
            write(encode_mailbox("Reply-To", mailbox))


class UnsubscribeHeaders:
    """List-Unsubscribe (RFC 2369), and for an https URL the one-click header (RFC 8058)."""

    def __init__(self, template: CompiledTemplate) -> None:
        self.template = template

    def write(self, names: dict[str, Any], write: Write) -> None:
        url = "".join(self.template.pieces(names))
        check_controls("unsubscribe url", url)
        if not _URL(url) or len(url) > _URL_LIMIT:
            raise MisuseError(
                f"{shortened(url)} is not an http, https or mailto URL",
                hint="quote values in it with {{ value | urlencode }}",
            )
        write(f"List-Unsubscribe: <{url}>\r\n".encode("ascii"))
        if url[:8].lower() == "https://":
            write(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")


def text_piece(template: CompiledTemplate) -> QuotedPrintableText | Base64Text:
    """The body of a text in the encoding that is shorter for what is the same for everyone."""
    if suits_base64("".join(template.constants)):
        return Base64Text(template)
    return QuotedPrintableText(template)
