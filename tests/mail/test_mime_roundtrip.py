"""What the standard library reads from a composed message is what went in."""

from email import message_from_bytes
from email.headerregistry import AddressHeader, ContentDispositionHeader
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailrace.mail.addresses import Mailbox
from mailrace.mail.mime import Attachment, CompiledMessage, InlineImage, compile_message
from mailrace.mail.sandbox import template_environment
from mailrace.mail.templates import CompiledTemplate

SENDER = Mailbox("shop@example.com", "The Shop")
SINGLE = ("From", "To", "Date", "Message-ID", "Subject", "MIME-Version", "Content-Type")

# What `check_controls` refuses, and what the library's own display names do not bring back: runs of
# white space, and names too long for one encoded word.
LINES = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=120
)  # fmt: skip
NAMES = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)
BODIES = st.text(
    st.one_of(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
        st.sampled_from(" \t\n\r=.-F"),
    ),
    max_size=300,
)
AWKWARD_BODIES = (
    "." * 200,
    ".\n..\n.\r\n",
    "From me\nFrom you\n>From\n",
    "trailing \t \nspaces  ",
    "x" * 3000,
    "長" * 900,
    "--=_x\n--\n",
    "",
    "\n\n",
    "a\rb\r\nc\x0b\x0c\x85\u2028d",
)


def composed(compiled: CompiledMessage, **variables: str) -> bytes:
    return compiled.compose(
        "ann@example.net", variables, message_id_local="id.1", date_s=1_751_328_000
    ).content


def parsed(content: bytes) -> EmailMessage:
    check_wire(content)
    message = message_from_bytes(content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert not part.defects
    for name in SINGLE:
        assert len(message.get_all(name, [])) == 1
    return message


def check_wire(content: bytes) -> None:
    assert content.endswith(b"\r\n")
    assert content.isascii()
    for line in content.split(b"\r\n"):
        assert len(line) <= 78
        assert b"\r" not in line
        assert b"\n" not in line
        assert b"\0" not in line


def decoded(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode("utf-8").replace("\r\n", "\n")


def with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


@settings(max_examples=80)
@given(value=BODIES, other=BODIES)
@example(value=AWKWARD_BODIES[0], other=AWKWARD_BODIES[1])
@example(value=AWKWARD_BODIES[2], other=AWKWARD_BODIES[3])
@example(value=AWKWARD_BODIES[4], other=AWKWARD_BODIES[5])
@example(value=AWKWARD_BODIES[6], other=AWKWARD_BODIES[7])
@example(value=AWKWARD_BODIES[8], other=AWKWARD_BODIES[9])
def test_bodies_read_back_as_the_templates_render(value: str, other: str) -> None:
    text = "Hi {{ value }}\n{% if other %}{{ other }} {{ value }}{% endif %}"
    html = "<p>{{ value }}</p>{% for c in other[:9] %}<b>{{ c }}</b>{% endfor %}{{ other }}\n"
    compiled = compile_message(
        sender=SENDER, subject="s", text=text, html=html, boundary_seed="seed"
    )
    message = parsed(composed(compiled, value=value, other=other))
    plain, rich = message.iter_parts()
    assert plain.get_content_type() == "text/plain"
    assert rich.get_content_type() == "text/html"
    for part, source, escaped in ((plain, text, False), (rich, html, True)):
        template = CompiledTemplate("x", source, template_environment(html=escaped))
        assert isinstance(part, EmailMessage)
        pieces = template.pieces({"value": value, "other": other})
        clean = "".join(map(with_line_feeds, pieces))
        assert decoded(part) == ended(clean)


@settings(max_examples=60)
@given(body=BODIES, value=BODIES)
@example(body="これは日本語の本文です。", value="\r\n.\r\n")
@example(body="é" * 500, value="\t")
def test_a_body_in_any_script_reads_back_by_itself(body: str, value: str) -> None:
    body = body.replace("{", "(").replace("\r", "")
    source = f"{{% raw %}}{body}{{% endraw %}}{{{{ value }}}}"
    compiled = compile_message(sender=SENDER, subject="s", text=source, boundary_seed="seed")
    assert decoded(parsed(composed(compiled, value=value))) == ended(body + with_line_feeds(value))


@settings(max_examples=80)
@given(subject=LINES, own=LINES)
@example(subject=" spaces  inside and around ", own="=?utf-8?q?no?=")
@example(subject="x" * 400, own="")
@example(subject="é" * 400, own="a " * 200 + "b")
def test_headers_read_back_as_they_were(subject: str, own: str) -> None:
    compiled = compile_message(
        sender=SENDER,
        subject="{{ subject }}",
        text="x",
        headers=[("X-Own", "{{ own }}")],
        boundary_seed="seed",
    )
    content = compiled.compose(
        "ann@example.net",
        {"subject": subject, "own": own},
        message_id_local="id.1",
        date_s=1_751_328_000,
    ).content
    message = message_from_bytes(content, policy=SMTP)
    assert message["Subject"] == subject
    assert message["X-Own"] == own
    assert all(len(message.get_all(name, [])) == 1 for name in (*SINGLE, "X-Own"))


@settings(max_examples=60)
@given(sender=NAMES, to=NAMES, reply_to=NAMES)
@example(sender="", to='"a, b" \\', reply_to="<x@y.example>")
@example(sender="山田太郎", to="Ñandú, S.A.", reply_to="=?utf-8?q?a?=")
def test_names_read_back_as_they_were(sender: str, to: str, reply_to: str) -> None:
    compiled = compile_message(
        sender=Mailbox("shop@example.com", sender),
        subject="s",
        text="x",
        reply_to='"{{ name }}" <help@bücher.example>',
        boundary_seed="seed",
    )
    escaped = reply_to.replace("\\", "\\\\").replace('"', '\\"')
    message = compiled.compose(
        Mailbox("ann@example.net", to), {"name": escaped}, message_id_local="i", date_s=0
    )
    headers = parsed(message.content)
    for header, name, address in (
        ("From", sender, "shop@example.com"),
        ("To", to, "ann@example.net"),
        ("Reply-To", reply_to, "help@xn--bcher-kva.example"),
    ):
        value = headers[header]
        assert isinstance(value, AddressHeader)
        assert [(one.display_name, one.addr_spec) for one in value.addresses] == [(name, address)]


@settings(max_examples=40)
@given(
    name=LINES.filter(str.strip),
    content=st.binary(max_size=300),
    image=st.binary(min_size=1, max_size=100),
)
@example(name="Übersicht 2025 – 山田.pdf", content=b"", image=b"\r\n.\r\n")
@example(name="a" * 120, content=b"\0" * 100, image=b"x")
def test_files_read_back_as_they_were(name: str, content: bytes, image: bytes) -> None:
    compiled = compile_message(
        sender=SENDER,
        subject="s",
        html='<img src="cid:logo">{{ value }}',
        attachments=[
            Attachment(file_name=name, media_type="application/pdf", content=content),
            Attachment(file_name="mail.eml", media_type="message/rfc822", content=content),
        ],
        inline_images=[InlineImage(content_id="logo", media_type="image/png", content=image)],
        boundary_seed="seed",
    )
    message = parsed(composed(compiled, value="v"))
    first, second = message.iter_attachments()
    assert isinstance(first, EmailMessage)
    disposition = first["Content-Disposition"]
    assert isinstance(disposition, ContentDispositionHeader)
    assert disposition.params["filename"] == name
    assert first.get_content() == content
    assert second.get_content_type() == "application/octet-stream"
    related = next(
        part for part in message.walk() if part.get_content_type() == "multipart/related"
    )
    picture = list(related.iter_parts())[1]
    assert picture["Content-ID"] == "<logo>"
    assert picture.get_content() == image
