"""Header lines: read back by the standard library as they were meant, and never more than one."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import AddressHeader, ContentDispositionHeader, DateHeader
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.addresses import Mailbox
from mailrace.mail.headernames import check_header_name, has_phrase, is_structured
from mailrace.mail.headers import (
    encode_date,
    encode_mailbox,
    encode_mailboxes,
    encode_message_id,
    encode_structured,
    encode_unstructured,
)
from mailrace.mail.parameters import encode_parameters

FORBIDDEN = "".join(
    map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0xD800, 0xDFFF])
)
VALUES = st.text(
    st.characters(exclude_characters=FORBIDDEN, exclude_categories=["Cs"]), max_size=200
)
WORDY = st.lists(
    st.one_of(VALUES, st.text("abc =?_", max_size=120)), max_size=6
).map("  ".join)  # fmt: skip


def read(line: bytes) -> EmailMessage:
    assert line.endswith(b"\r\n")
    for piece in line[:-2].split(b"\r\n"):
        assert b"\r" not in piece
        assert b"\n" not in piece
        assert len(piece) <= 998
        assert piece.strip()
    message = message_from_bytes(line + b"\r\n", policy=SMTP)
    assert isinstance(message, EmailMessage)
    assert len(message.keys()) == 1
    assert not message.get_payload()
    return message


@settings(max_examples=150)
@given(text=WORDY)
@example(text="a" * 2000)
@example(text="a" * 899)
@example(text="b " + "a" * 899 + " c")
@example(text="=?utf-8?q?a?=")
@example(text=" led and trailed ")
@example(text=" ")
@example(text="")
@example(text="x" * 66 + " " * 900 + "y")
@example(text="é" + " " * 300)
def test_a_subject_reads_back_as_it_was(text: str) -> None:
    line = encode_unstructured("Subject", text)
    assert line.isascii()
    assert read(line)["Subject"] == text


@settings(max_examples=50)
@given(
    words=st.lists(
        st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=60),
        min_size=1,
        max_size=20,
    )
)
def test_lines_are_folded_at_78(words: list[str]) -> None:
    line = encode_unstructured("X-Words", " ".join(words))
    assert max(map(len, line.split(b"\r\n"))) <= 78


@settings(max_examples=50)
@given(
    text=st.text(
        st.characters(min_codepoint=0xA1, exclude_characters=FORBIDDEN, exclude_categories=["Cs"]),
        min_size=1,
        max_size=300,
    )
)
def test_encoded_words_keep_within_75_and_their_lines_within_76(text: str) -> None:
    for name in ("X", "Subject", "X-" + "Long" * 12):
        line = encode_unstructured(name, text)
        words = line.decode("ascii").split()[1:]
        assert all(len(word) <= 75 and word.startswith("=?utf-8?") for word in words)
        assert all(len(piece) <= 76 for piece in line.split(b"\r\n"))
        assert read(line)[name] == text


def test_the_shorter_encoding_is_taken() -> None:
    assert b"?q?" in encode_unstructured("Subject", "Grüße aus Köln, hier ist alles gut")
    assert b"?b?" in encode_unstructured("Subject", "お知らせ")


@settings(max_examples=100)
@given(name=VALUES)
@example(name='"quoted" \\ and (brackets), <angles>; a@b.example')
@example(name="=?utf-8?q?x?=")
@example(name="Ann\\")
@example(name="a" * 300)
@example(name=". .")
def test_a_display_name_reads_back_as_it_was(name: str) -> None:
    line = encode_mailbox("To", Mailbox("ann@example.com", name))
    header = read(line)["To"]
    assert isinstance(header, AddressHeader)
    (address,) = header.addresses
    assert address.addr_spec == "ann@example.com"
    if line.count(b"=?utf-8?") > 1:
        # The library keeps the space between two encoded words here (RFC 2047 section 6.2 drops
        # it), its older decoder does not.
        phrase = line.decode("ascii").removeprefix("To: ").rpartition(" <")[0]
        assert str(make_header(decode_header(phrase))) == name
    else:
        assert address.display_name.strip() == name.strip()


def test_several_mailboxes_stand_in_one_header() -> None:
    mailboxes = [Mailbox(f"a{number}@example.com", f"Döe, Ann {number}") for number in range(9)]
    header = read(encode_mailboxes("Cc", mailboxes))["Cc"]
    assert [(a.addr_spec, a.display_name) for a in header.addresses] == [
        (mailbox.address, mailbox.name) for mailbox in mailboxes
    ]
    with pytest.raises(MisuseError, match="no mailbox"):
        encode_mailboxes("Cc", [])


def test_a_local_part_beyond_ascii_stands_as_utf8() -> None:
    assert encode_mailbox("To", Mailbox("用户@example.com")) == "To: 用户@example.com\r\n".encode()


@settings(max_examples=150)
@given(before=VALUES, control=st.sampled_from(FORBIDDEN), after=VALUES)
@example(before="ok", control="\r", after="\nBcc: eve@example.com")
def test_no_value_begins_another_header(before: str, control: str, after: str) -> None:
    dirty = before + control + after
    with pytest.raises(MisuseError, match=r"^Subject: control character"):
        encode_unstructured("Subject", dirty)
    with pytest.raises(MisuseError, match="control character"):
        encode_parameters("Content-Disposition", "attachment", {"filename": dirty})


@settings(max_examples=80)
@given(name=VALUES.filter(bool))
@example(name='a "b" \\ c.pdf')
@example(name="résumé " * 30 + ".pdf")
@example(name="=?utf-8?q?x?=.pdf")
def test_a_file_name_reads_back_as_it_was(name: str) -> None:
    line = encode_parameters("Content-Disposition", "attachment", {"filename": name})
    assert all(len(piece) <= 78 for piece in line.split(b"\r\n"))
    header = read(line)["Content-Disposition"]
    assert isinstance(header, ContentDispositionHeader)
    assert header.params["filename"] == name


@given(unix_s=st.integers(0, 4_102_444_800))
@settings(max_examples=50)
def test_a_date_reads_back_as_it_was(unix_s: int) -> None:
    header = read(encode_date(unix_s))["Date"]
    assert isinstance(header, DateHeader)
    assert header.datetime == datetime.fromtimestamp(unix_s, UTC)


def test_a_date_is_written_in_utc() -> None:
    assert encode_date(1_751_328_000) == b"Date: Tue, 01 Jul 2025 00:00:00 +0000\r\n"


@pytest.mark.parametrize(
    "local", ["", "a b", "a>b", "a@b", ".a", "a..b", "a\r\nX: y", "é", "a" * 201]
)
def test_a_message_id_is_a_dot_atom(local: str) -> None:
    assert encode_message_id("a.b-1", "example.com") == b"Message-ID: <a.b-1@example.com>\r\n"
    with pytest.raises(MisuseError, match="Message-ID"):
        encode_message_id(local, "example.com")


@pytest.mark.parametrize(
    "name", ["X-Team", "Feedback-ID", "List-Id", "Auto-Submitted", "Precedence"]
)
def test_a_header_of_ones_own_is_let_through(name: str) -> None:
    check_header_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "not a header name"),
        ("X Team", "not a header name"),
        ("X:Team", "not a header name"),
        ("X-Tëam", "not a header name"),
        ("X-Team\r\nBcc", "not a header name"),
        ("X-Team\n", "not a header name"),
        ("X" * 51, "not a header name"),
        ("bcc", "cannot be set"),
        ("FROM", "cannot be set"),
        ("Message-Id", "cannot be set"),
        ("Content-Language", "cannot be set"),
        ("Resent-To", "cannot be set"),
        ("DKIM-Signature", "cannot be set"),
        ("reply-to", "reply-to address"),
        ("List-Unsubscribe-Post", "unsubscribe URL"),
    ],
)
def test_a_header_that_is_not_the_callers_is_refused(name: str, reason: str) -> None:
    with pytest.raises(MisuseError, match=reason):
        check_header_name(name)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("List-Id", "Café <news.example.com>", "=?utf-8?b?Q2Fmw6k=?= <news.example.com>"),
        ("List-Id", '"Café" <news.example.com> ', "=?utf-8?b?Q2Fmw6k=?= <news.example.com>"),
        ("List-Id", "News <n.example.com>", "News <n.example.com>"),
        (
            "List-Id",
            "=?utf-8?q?=C3=A9?= <n.example.com>",
            "=?utf-8?q?=C3=A9?= <n.example.com>",
        ),
        ("Errors-To", "Zoë <z@example.com>", "=?utf-8?q?Zo=C3=AB?= <z@example.com>"),
    ],
)
def test_of_a_structured_header_only_words_are_encoded(name: str, value: str, line: str) -> None:
    assert is_structured(name)
    written = encode_structured(name, value, phrase=has_phrase(name))
    assert written == f"{name}: {line}\r\n".encode("ascii")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("List-Id", "News <né.example.com>", "only words before"),
        ("List-Help", "<mailto:é@example.com>", "only words before"),
        ("List-Id", "é\r\nBcc: x <a>", "control character"),
        ("References", "é <a@example.com>", "this header takes none"),
        ("In-Reply-To", "<é@example.com>", "this header takes none"),
        ("Feedback-ID", "é", "this header takes none"),
        ("References", "a" * 1000, "too long"),
    ],
)
def test_a_structured_header_is_refused_rather_than_encoded(
    name: str, value: str, reason: str
) -> None:
    with pytest.raises(MisuseError, match=reason):
        encode_structured(name, value, phrase=has_phrase(name))


def test_references_are_folded_between_ids() -> None:
    ids = " ".join(f"<{number}{'a' * 40}@example.com>" for number in range(9))
    line = encode_structured("References", ids, phrase=False)
    assert max(map(len, line.split(b"\r\n"))) <= 78
    assert line.replace(b"\r\n", b"").decode() == f"References: {ids}"
