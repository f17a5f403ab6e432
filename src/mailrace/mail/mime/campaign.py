"""A campaign's message, compiled once; a recipient costs only what differs."""

from collections.abc import Iterable, Mapping
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from mailrace.errors import MisuseError
from mailrace.mail.addresses import Mailbox, check_address
from mailrace.mail.headernames import check_header_name
from mailrace.mail.headers import encode_date, encode_mailbox, encode_message_id
from mailrace.mail.html import html_to_text, inline_css
from mailrace.mail.message import Message
from mailrace.mail.mime.parts import Attachment, InlineImage, attachment_part, inline_image_part
from mailrace.mail.mime.pieces import (
    Piece,
    ReplyToHeader,
    UnstructuredHeader,
    UnsubscribeHeaders,
    text_piece,
)
from mailrace.mail.mime.structure import Node, merged, multipart_node, text_node, whole_node
from mailrace.mail.templates import CompiledTemplate, template_environment


class CompiledMessage:
    """The message of a campaign, ready to be composed for one recipient after the other.

    Attributes:
        sender: Who it is from; also the envelope sender.
        wanted: Variables that its templates may look up.
    """

    def __init__(
        self,
        *,
        sender: Mailbox,
        before_message_id: Iterable[bytes | Piece],
        after_message_id: Iterable[bytes | Piece],
    ) -> None:
        """Use `compile_message`."""
        constants = template_environment(html=False).globals
        self.sender = sender
        self._from = encode_mailbox("From", sender)
        self._domain = sender.domain
        self._globals: dict[str, Any] = dict(constants)
        self._smtputf8 = sender.needs_smtputf8
        self._before = _settled(before_message_id, self._globals)
        self._after = _settled(after_message_id, self._globals)
        self.wanted = frozenset[str]().union(
            *(
                piece.template.wanted
                for piece in (*self._before, *self._after)
                if not isinstance(piece, bytes)
            )
        )

    def compose(
        self,
        to: Mailbox | str,
        variables: Mapping[str, object],
        *,
        message_id_local: str,
        date_s: int,
    ) -> Message:
        """The message for one recipient: the same bytes for the same arguments.

        Args:
            to: A mailbox, or an address without a name.
            variables: Column to value.
            message_id_local: What stands before the @ of the Message-ID; the same at every attempt.
            date_s: Unix time for the Date header.

        Raises:
            MisuseError: The address is not one, or a template cannot be filled in with these
                values; says which part and why.
        """
        address, to_line = _addressed(to)
        content = [encode_date(date_s), self._from, to_line]
        names = {**self._globals, **variables}
        _write(self._before, names, variables, content)
        content.append(encode_message_id(message_id_local, self._domain))
        _write(self._after, names, variables, content)
        return Message(
            sender=self.sender.address,
            recipients=(address,),
            content=b"".join(content),
            smtputf8=self._smtputf8 or not address.isascii(),
        )


def _addressed(to: Mailbox | str) -> tuple[str, bytes]:
    if isinstance(to, str):
        address = check_address(to)
        if len(address) <= 70:
            return address, f"To: {address}\r\n".encode()
        to = Mailbox(address)
    return to.address, encode_mailbox("To", to)


def _write(
    pieces: Iterable[bytes | Piece],
    names: dict[str, Any],
    columns: Mapping[str, object],
    content: list[bytes],
) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            content.append(piece)
        else:
            try:
                piece.write(names, content.append)
            except Exception as error:
                raise piece.template.explain(error, columns) from error


def _settled(pieces: Iterable[bytes | Piece], names: dict[str, Any]) -> tuple[bytes | Piece, ...]:
    """Writes once for all what has nothing to fill in."""
    settled: list[bytes | Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes) or piece.template.constant is None:
            settled.append(piece)
        else:
            written: list[bytes] = []
            _write([piece], names, {}, written)
            settled += written
    return merged(settled)


def compile_message(
    *,
    sender: Mailbox,
    subject: str,
    html: str | None = None,
    text: str | None = None,
    attachments: Iterable[Attachment] = (),
    inline_images: Iterable[InlineImage] = (),
    reply_to: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    unsubscribe_url: str | None = None,
    boundary_seed: str,
) -> CompiledMessage:
    """Compiles a message; what is the same for every recipient becomes bytes here.

    `subject`, `html`, `text`, `reply_to`, `unsubscribe_url` and the values of `headers` are Jinja2
    templates. Style sheets in `html` are moved into the elements. Values are escaped in `html` only.

    Args:
        sender: Goes to From, to the envelope, and its domain to the Message-ID.
        subject: One line.
        html: The HTML part.
        text: The text part; made from `html` where it is not given.
        attachments: In this order after the text.
        inline_images: Pictures that `html` shows as `<img src="cid:…">`.
        reply_to: `ann@example.com` or `Ann <ann@example.com>`.
        headers: Further headers, name and value.
        unsubscribe_url: http, https or mailto; with https also one click.
        boundary_seed: Decides the MIME boundaries, for example the campaign's name.

    Raises:
        MisuseError: Neither `html` nor `text` is given, a template is wrong, a header may not be
            set; says which and why.
    """
    plain = template_environment(html=False)
    before: list[bytes | Piece] = []
    if reply_to is not None:
        before.append(ReplyToHeader(CompiledTemplate("reply-to", reply_to, plain)))
    before.append(UnstructuredHeader("Subject", CompiledTemplate("subject", subject, plain)))
    after: list[bytes | Piece] = []
    if unsubscribe_url is not None:
        after.append(
            UnsubscribeHeaders(CompiledTemplate("unsubscribe url", unsubscribe_url, plain))
        )
    after += _own_headers(headers, plain)
    related = multipart_node(
        "related",
        [
            multipart_node("alternative", _text_nodes(html, text), seed=boundary_seed),
            *(whole_node(inline_image_part(image)) for image in inline_images),
        ],
        seed=boundary_seed,
        parameters=f'; type="{"multipart/alternative" if html is not None else "text/plain"}"',
    )
    files = [whole_node(attachment_part(attachment)) for attachment in attachments]
    top = multipart_node("mixed", [related, *files], seed=boundary_seed)
    after += [b"MIME-Version: 1.0\r\n", top.headers, b"\r\n", *top.body]
    return CompiledMessage(sender=sender, before_message_id=before, after_message_id=after)


def _own_headers(
    headers: Iterable[tuple[str, str]], environment: ImmutableSandboxedEnvironment
) -> list[UnstructuredHeader]:
    seen: set[str] = set()
    made = []
    for name, value in headers:
        check_header_name(name)
        if name.lower() in seen:
            raise MisuseError(f"the header {name} is given twice", hint="keep one of them")
        seen.add(name.lower())
        template = CompiledTemplate(f"header {name}", value, environment)
        made.append(UnstructuredHeader(name, template))
    return made


def _text_nodes(html: str | None, text: str | None) -> list[Node]:
    """The text and the HTML part, the one that is liked better last (RFC 2046 section 5.1.4)."""
    plain = template_environment(html=False)
    if html is None:
        if text is None:
            raise MisuseError("the message has no body", hint="give html, text or both")
        return [text_node("plain", text_piece(CompiledTemplate("text", text, plain)))]
    escaping = template_environment(html=True)
    # Compiled as written first: its errors then have the lines of the caller's file.
    written = CompiledTemplate("html", html, escaping)
    inlined = CompiledTemplate("html", inline_css(html), escaping, lines=written.lines)
    text_template = (
        CompiledTemplate("text made from html", html_to_text(html), plain, lines=written.lines)
        if text is None
        else CompiledTemplate("text", text, plain)
    )
    return [text_node("plain", text_piece(text_template)), text_node("html", text_piece(inlined))]
