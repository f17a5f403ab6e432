"""The shape of a message: levels, order, encodings, and the same bytes for the same arguments."""

import re
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import SMTP

import pytest

from mailrace.mail.addresses import Mailbox, parse_mailbox
from mailrace.mail.mime import Attachment, CompiledMessage, InlineImage, compile_message

SENDER = Mailbox("shop@example.com", "The Shop")
FILE = Attachment(file_name="a.pdf", media_type="application/pdf", content=b"%PDF")
IMAGE = InlineImage(
    content_id="logo", media_type="image/png", content=b"\x89PNG", file_name="logo.png"
)


def compose(
    compiled: CompiledMessage, to: Mailbox | str = "ann@example.net", **variables: str
) -> bytes:
    return compiled.compose(to, variables, message_id_local="id", date_s=1_751_328_000).content


def tree(part: Message) -> object:
    if not part.is_multipart():
        return part.get_content_type()
    assert isinstance(part, EmailMessage)
    return {part.get_content_subtype(): [tree(child) for child in part.iter_parts()]}


TEXTS = {"alternative": ["text/plain", "text/html"]}


@pytest.mark.parametrize(
    ("html", "text", "files", "images", "shape"),
    [
        (None, "t", [], [], "text/plain"),
        ("h", None, [], [], TEXTS),
        ("h", "t", [], [], TEXTS),
        (None, "t", [FILE], [], {"mixed": ["text/plain", "application/pdf"]}),
        ("h", "t", [], [IMAGE], {"related": [TEXTS, "image/png"]}),
        ("h", "t", [FILE, FILE], [], {"mixed": [TEXTS, "application/pdf", "application/pdf"]}),
        (
            "h",
            "t",
            [FILE],
            [IMAGE],
            {"mixed": [{"related": [TEXTS, "image/png"]}, "application/pdf"]},
        ),
    ],
)
def test_there_are_only_the_levels_that_are_needed(
    html: str | None,
    text: str | None,
    files: list[Attachment],
    images: list[InlineImage],
    shape: object,
) -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", html=html, text=text, attachments=files, inline_images=images,
        boundary_seed="x",
    )  # fmt: skip
    message = message_from_bytes(compose(compiled), policy=SMTP)
    assert tree(message) == shape


def test_the_headers_stand_in_a_fixed_order() -> None:
    compiled = compile_message(
        sender=SENDER,
        subject="Hi {{ name }}",
        html="<p>Hi {{ name }}</p>",
        reply_to="help@example.com",
        headers=[("X-Team", "{{ name }}"), ("Precedence", "bulk")],
        unsubscribe_url="https://example.com/u/{{ name | urlencode }}",
        boundary_seed="x",
    )
    content = compose(compiled, name="Ann Lee")
    head = content.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")
    assert head == [
        "Date: Tue, 01 Jul 2025 00:00:00 +0000",
        "From: The Shop <shop@example.com>",
        "To: ann@example.net",
        "Reply-To: help@example.com",
        "Subject: Hi Ann Lee",
        "Message-ID: <id@example.com>",
        "List-Unsubscribe: <https://example.com/u/Ann%20Lee>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        "X-Team: Ann Lee",
        "Precedence: bulk",
        "MIME-Version: 1.0",
        "Content-Type: multipart/alternative;",
        head[-1],
    ]


@pytest.mark.parametrize("url", ["mailto:stop@example.com?subject=stop", "http://example.com/u"])
def test_one_click_is_for_https_only(url: str) -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", text="t", unsubscribe_url=url, boundary_seed="x"
    )
    content = compose(compiled)
    assert f"List-Unsubscribe: <{url}>\r\n".encode() in content
    assert b"List-Unsubscribe-Post" not in content


def test_the_same_arguments_give_the_same_bytes_and_the_seed_decides_the_boundaries() -> None:
    def made(seed: str) -> bytes:
        compiled = compile_message(
            sender=SENDER, subject="s", html="h", attachments=[FILE], boundary_seed=seed
        )
        return compose(compiled)

    assert made("a") == made("a")
    assert re.findall(b'boundary="([^"]*)"', made("a")) != re.findall(
        b'boundary="([^"]*)"', made("b")
    )


def test_each_level_has_a_boundary_that_no_encoding_can_make() -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", html="h", attachments=[FILE], inline_images=[IMAGE],
        boundary_seed="x",
    )  # fmt: skip
    boundaries = re.findall(b'boundary="([^"]*)"', compose(compiled))
    assert len(set(boundaries)) == 3
    assert all(boundary.startswith(b"=_") for boundary in boundaries)


def test_the_encoding_of_a_text_follows_its_content() -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", text="Grüße aus Köln, es ist alles gut hier",
        html="<p>これは日本語の本文です</p>", boundary_seed="x",
    )  # fmt: skip
    message = message_from_bytes(compose(compiled), policy=SMTP)
    assert [part["Content-Transfer-Encoding"] for part in message.walk()][1:] == [
        "quoted-printable",
        "base64",
    ]


def test_what_is_the_same_for_everyone_is_one_run_of_bytes() -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", text="t", html="<p>h</p>", attachments=[FILE], boundary_seed="x"
    )
    assert compose(compiled, a="1") == compose(compiled, a="2")
    assert compiled.wanted == frozenset()


def test_a_message_tells_what_its_templates_want() -> None:
    compiled = compile_message(
        sender=SENDER, subject="{{ a }}", text="{{ b }}", html="{{ c }}", reply_to="{{ d }}",
        headers=[("X-E", "{{ e }}")], unsubscribe_url="{{ f }}", boundary_seed="x",
    )  # fmt: skip
    assert compiled.wanted == set("abcdef")


def test_style_sheets_are_inlined_and_the_text_is_made_from_the_html() -> None:
    compiled = compile_message(
        sender=SENDER,
        subject="s",
        html="<style>p { color: red }</style><p>Hi {{ name }} &amp; all</p>",
        boundary_seed="x",
    )
    message = message_from_bytes(compose(compiled, name="<Ann>"), policy=SMTP)
    plain, html = message.iter_parts()
    assert plain.get_content() == "Hi <Ann> & all\r\n"
    assert html.get_content() == '<p style="color: red">Hi &lt;Ann&gt; &amp; all</p>\r\n'


def test_the_message_is_ready_for_the_envelope() -> None:
    compiled = compile_message(sender=SENDER, subject="s", text="t", boundary_seed="x")
    message = compiled.compose(
        parse_mailbox("Ann <Ann@Bücher.example>"), {}, message_id_local="id", date_s=0
    )
    assert message.sender == "shop@example.com"
    assert message.recipients == ("Ann@xn--bcher-kva.example",)
    assert not message.smtputf8
    assert b"To: Ann <Ann@xn--bcher-kva.example>\r\n" in message.content


def test_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    compiled = compile_message(sender=SENDER, subject="s", text="t", boundary_seed="x")
    message = compiled.compose("用户@例え.jp", {}, message_id_local="id", date_s=0)
    assert message.smtputf8
    assert message.recipients == ("用户@xn--r8jz45g.jp",)
    assert "To: 用户@xn--r8jz45g.jp\r\n".encode() in message.content
    from_abroad = compile_message(
        sender=parse_mailbox("用户@例え.jp"), subject="s", text="t", boundary_seed="x"
    )
    message = from_abroad.compose("ann@example.net", {}, message_id_local="id", date_s=0)
    assert message.smtputf8
    assert b"Message-ID: <id@xn--r8jz45g.jp>\r\n" in message.content


def test_a_reply_to_that_comes_out_empty_is_left_out() -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", text="t", reply_to="{{ agent }}", boundary_seed="x"
    )
    assert b"Reply-To" not in compose(compiled, agent="")
    assert b"Reply-To: Bo <bo@example.com>\r\n" in compose(compiled, agent="Bo <bo@example.com>")


@pytest.mark.parametrize(
    ("media_type", "content", "sent"),
    [
        ("text/plain", "é".encode(), "text/plain; charset=utf-8"),
        ("Text/CSV", b"", "text/csv; charset=utf-8"),
        ("text/plain", "é".encode("latin-1"), "application/octet-stream"),
        ("application/json", "é".encode("latin-1"), "application/json"),
    ],
)
def test_a_text_that_goes_along_says_its_charset(
    media_type: str, content: bytes, sent: str
) -> None:
    file = Attachment(file_name="a", media_type=media_type, content=content)
    compiled = compile_message(
        sender=SENDER, subject="s", text="t", attachments=[file], boundary_seed="x"
    )
    mail = compiled.compose("ann@example.net", {}, message_id_local="i", date_s=0).content
    _, attached = message_from_bytes(mail, policy=SMTP).iter_parts()
    assert attached["Content-Type"].replace('"', "") == sent
    assert attached.get_payload(decode=True) == content
