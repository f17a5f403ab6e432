"""What is not sent, and what is said about it: no header begins by any path."""

from collections.abc import Callable
from email import message_from_bytes
from email.policy import SMTP
from typing import NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.addresses import Mailbox
from mailrace.mail.mime import Attachment, CompiledMessage, InlineImage, compile_message
from mailrace.mail.templates import UnfitValueError

SENDER = Mailbox("shop@example.com", "The Shop")
CONTROLS = st.sampled_from([chr(c) for c in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)])
NAMES = {"date", "from", "to", "reply-to", "subject", "message-id", "list-unsubscribe",
         "list-unsubscribe-post", "x-own", "mime-version", "content-type",
         "content-transfer-encoding"}  # fmt: skip


def full() -> CompiledMessage:
    return compile_message(
        sender=SENDER,
        subject="Hi {{ subject }}",
        text="{{ body }}",
        html="{{ body }}",
        reply_to="{{ reply_to }}",
        headers=[("X-Own", "{{ own }}")],
        unsubscribe_url="https://example.com/{{ url }}",
        boundary_seed="x",
    )


VARIABLES = {
    "subject": "s", "body": "b", "reply_to": "a@example.com", "own": "o", "url": "u",
}  # fmt: skip
PARTS = {
    "subject": "subject",
    "reply_to": "reply-to: mailbox",
    "own": "header X-Own",
    "url": "unsubscribe url",
}
FULL = full()


def compose(to: Mailbox | str = "ann@example.net", local: str = "id", **variables: str) -> bytes:
    return FULL.compose(to, {**VARIABLES, **variables}, message_id_local=local, date_s=0).content


@settings(max_examples=100)
@given(
    column=st.sampled_from(sorted(PARTS)),
    before=st.text("ab ", max_size=5),
    control=CONTROLS,
    after=st.sampled_from(["", "\nBcc: eve@example.com", "x"]),
)
def test_no_value_begins_a_header(column: str, before: str, control: str, after: str) -> None:
    with pytest.raises(MisuseError, match=f"^{PARTS[column]}: control character") as caught:
        compose(**{column: before + control + after})
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(
    value=st.text(
        st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\r\n:=-_ ")),
        max_size=80,
    )
)
def test_whatever_the_values_are_there_are_only_our_headers(value: str) -> None:
    for column in VARIABLES:
        try:
            content = compose(**{column: value})
        except MisuseError:
            continue
        message = message_from_bytes(content, policy=SMTP)
        names = [name.lower() for name in message]
        assert set(names) <= NAMES
        assert len(names) == len(set(names))
        assert len(list(message.walk())) == 3


@pytest.mark.parametrize(
    ("to", "local"),
    [
        ("ann@example.net\r\nBcc: eve@example.com", "id"),
        ("ann", "id"),
        ("ann@example.net", "id\r\nBcc: eve@example.com"),
        ("ann@example.net", "a b"),
    ],
)
def test_no_address_and_no_id_begins_a_header(to: str, local: str) -> None:
    with pytest.raises(MisuseError):
        compose(to, local)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("a b", "is not an http, https or mailto URL"),
        ("<x>", "is not an http, https or mailto URL"),
        ("ü", "is not an http, https or mailto URL"),
        ("a" * 900, "is not an http, https or mailto URL"),
    ],
)
def test_an_unsubscribe_url_must_be_one(url: str, reason: str) -> None:
    with pytest.raises(MisuseError, match=reason):
        compose(url=url)


@pytest.mark.parametrize(
    "url", ["", "example.com/u", "javascript:x", "ftp://x.example", "https://", "mailto:"]
)
def test_a_constant_unsubscribe_url_is_checked_at_once(url: str) -> None:
    with pytest.raises(MisuseError, match=r"^unsubscribe url: .* is not an http"):
        compile_message(
            sender=SENDER, subject="s", text="t", unsubscribe_url=url, boundary_seed="x"
        )


@pytest.mark.parametrize(
    "local", ["a>, <https://evil.example/x>, <mailto:b", "a,b", "a b", "é", "a<b", ""]
)
def test_an_unsubscribe_address_cannot_become_two(local: str) -> None:
    compiled = compile_message(
        sender=SENDER, subject="s", text="t", unsubscribe_url="mailto:{{ local }}@example.com",
        boundary_seed="x",
    )  # fmt: skip
    with pytest.raises(UnfitValueError, match=r"^unsubscribe url: .* is not an http") as caught:
        compiled.compose("ann@example.net", {"local": local}, message_id_local="i", date_s=0)
    assert "urlencode" in caught.value.hint


@pytest.mark.parametrize("body", ["a\0b", "\ud800"])
def test_what_no_body_can_carry_is_refused_with_its_part(body: str) -> None:
    with pytest.raises(MisuseError, match=r"^text: character U\+(0000|D800) cannot be sent"):
        compose(body=body)


def test_a_reply_to_must_be_an_address_that_every_server_takes() -> None:
    with pytest.raises(MisuseError, match=r"^reply-to: no @ in 'x'"):
        compose(reply_to="x")
    with pytest.raises(MisuseError, match=r"^reply-to: .* not ASCII"):
        compose(reply_to="用户@example.com")


class Arguments(TypedDict):
    subject: NotRequired[str]
    text: NotRequired[str]
    html: NotRequired[str]
    reply_to: NotRequired[str]
    headers: NotRequired[list[tuple[str, str]]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "no body"),
        ({"text": "{{"}, "^text line 1: "),
        ({"html": "a\n{% if %}"}, "^html line 2: "),
        ({"text": "t", "subject": "{{ x | nope }}"}, "^subject line 1: No filter named 'nope'"),
        ({"text": "t", "subject": "a\nb"}, "^subject: control character"),
        ({"text": "t", "headers": [("Bcc", "eve@example.com")]}, "cannot be set"),
        ({"text": "t", "headers": [("Apparently-To", "a@example.com")]}, "cannot be set"),
        ({"text": "t", "headers": [("References", "é")]}, "^header References: .* not ASCII"),
        (
            {"html": "<p>&#x7B;</p>{% if 1 %}<svg>{% endif %}<b {{'>'}}>", "subject": "é\0"},
            "^subject: control",
        ),
        ({"text": "t", "headers": [("X-A", "1"), ("x-a", "2")]}, "given twice"),
        ({"text": "t", "headers": [("X-A: b\r\nBcc", "1")]}, "not a header name"),
        ({"text": "t", "headers": [("X-A", "b\r\nBcc: x")]}, "^header X-A: control"),
        ({"text": "t", "headers": [("X-A", "{% if %}")]}, "^header X-A line 1: "),
        ({"text": "t", "reply_to": "nobody"}, "^reply-to: no @"),
    ],
)
def test_a_wrong_campaign_is_refused_when_it_is_compiled(arguments: Arguments, reason: str) -> None:
    with pytest.raises(MisuseError, match=reason):
        compile_message(
            sender=SENDER,
            subject=arguments.get("subject", "s"),
            text=arguments.get("text"),
            html=arguments.get("html"),
            reply_to=arguments.get("reply_to"),
            headers=arguments.get("headers", []),
            boundary_seed="x",
        )


def test_an_unknown_column_is_answered_with_part_line_and_columns() -> None:
    compiled = compile_message(
        sender=SENDER,
        subject="s",
        html="<style>a\n{}\n</style>\n<p>\n{{ nmae }}",
        boundary_seed="x",
    )
    with pytest.raises(MisuseError) as caught:
        compiled.compose("ann@example.net", {"name": ""}, message_id_local="i", date_s=0)
    assert str(caught.value) == (
        "html line 5: no column named 'nmae'; did you mean 'name'? the columns are name"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Attachment(file_name="a\r\nX: y", content=b""),
        lambda: Attachment(file_name="", content=b""),
        lambda: Attachment(file_name="a", media_type="text", content=b""),
        lambda: Attachment(file_name="a", media_type="text/plain\r\nX: y", content=b""),
        lambda: Attachment(file_name="a", media_type="text/plain; name=x", content=b""),
        lambda: InlineImage(content_id="a>b", media_type="image/png", content=b""),
        lambda: InlineImage(content_id="", media_type="image/png", content=b""),
        lambda: InlineImage(content_id="a", media_type="image/png\n", content=b""),
        lambda: InlineImage(content_id="a", media_type="image/png", content=b"", file_name="\n"),
    ],
)
def test_a_file_is_checked_when_it_is_given(make: Callable[[], object]) -> None:
    with pytest.raises(MisuseError):
        make()


def test_a_text_that_cannot_be_made_is_not_blamed_on_the_html() -> None:
    html = "<p>a</p {% if x %}>b{% endif %}"
    with pytest.raises(MisuseError) as caught:
        compile_message(sender=SENDER, subject="s", html=html, boundary_seed="x")
    assert "a text part cannot be made" in str(caught.value)
    assert "--text" in caught.value.hint
    compile_message(sender=SENDER, subject="s", html=html, text="t", boundary_seed="x")
