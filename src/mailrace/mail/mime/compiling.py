"""A campaign's message, compiled once; a recipient then costs only what differs."""

from collections.abc import Iterable

from jinja2.sandbox import ImmutableSandboxedEnvironment

from mailrace.errors import MisuseError
from mailrace.mail.addresses import Mailbox
from mailrace.mail.headernames import check_header_name, is_structured
from mailrace.mail.html import html_to_text, inline_css
from mailrace.mail.mime.compiled import CompiledMessage
from mailrace.mail.mime.parts import Attachment, InlineImage, attachment_part, inline_image_part
from mailrace.mail.mime.pieces import (
    Piece,
    ReplyToHeader,
    StructuredHeader,
    UnstructuredHeader,
    UnsubscribeHeaders,
    text_piece,
)
from mailrace.mail.mime.structure import Node, multipart_node, text_node, whole_node
from mailrace.mail.sandbox import template_environment
from mailrace.mail.templates import CompiledTemplate


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
    templates. Style sheets in `html` are moved into the elements. Values are escaped in `html`
    only.

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
) -> list[Piece]:
    seen: set[str] = set()
    made: list[Piece] = []
    for name, value in headers:
        check_header_name(name)
        if name.lower() in seen:
            raise MisuseError(f"the header {name} is given twice", hint="keep one of them")
        seen.add(name.lower())
        template = CompiledTemplate(f"header {name}", value, environment)
        kind = StructuredHeader if is_structured(name) else UnstructuredHeader
        made.append(kind(name, template))
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
        _text_from(html, written) if text is None else CompiledTemplate("text", text, plain)
    )
    return [text_node("plain", text_piece(text_template)), text_node("html", text_piece(inlined))]


def _text_from(html: str, written: CompiledTemplate) -> CompiledTemplate:
    environment = template_environment(html=False, from_html=True)
    try:
        return CompiledTemplate("html", html_to_text(html), environment, lines=written.lines)
    except MisuseError as error:
        raise MisuseError(
            "html: it is right, but a text part cannot be made from it",
            hint="give the text as well (--text)",
        ) from error
