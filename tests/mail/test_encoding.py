"""Transfer encodings: joined pieces decode to the joined text, in lines that may be sent."""

import base64
import quopri

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.encoding import (
    base64_lines,
    clean_text,
    join_chunks,
    quoted_printable_chunk,
    suits_base64,
)

TEXTS = st.text(
    st.one_of(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
        st.sampled_from("=. \t\r\nFrom"),
    ),
    max_size=200,
)


def joined(pieces: list[str]) -> bytes:
    written: list[bytes] = []
    join_chunks(map(quoted_printable_chunk, pieces), written.append)
    return b"".join(written)


@settings(max_examples=200)
@given(pieces=st.lists(TEXTS, max_size=5))
@example(pieces=["a ", "\nb\t\n", " ", "\n"])
@example(pieces=["x" * 500, "=" * 75, "=" * 26, "é" * 13])
@example(pieces=["." * 80, ".", ".\n.", "From me\nFrom you", "\r\n", "\r"])
@example(pieces=["a\x01b" * 20, "x" * 75, "x" * 76, "x" * 74 + "="])
def test_joined_pieces_decode_to_the_joined_text(pieces: list[str]) -> None:
    encoded = joined(pieces)
    assert encoded.isascii()
    for line in encoded.split(b"\r\n"):
        assert len(line) <= 76
        assert b"\r" not in line
        assert b"\n" not in line
        assert not line.endswith((b" ", b"\t"))
        assert not line.startswith(b".")
    decoded = quopri.decodestring(encoded).decode().replace("\r\n", "\n")
    text = "".join(map(clean_text, pieces))
    assert decoded == (text if not text or text.endswith("\n") else f"{text}\n")


@given(text=TEXTS)
@example(text="From me\nFrom you")
def test_no_line_is_quoted_by_a_mailbox_file(text: str) -> None:
    assert not any(line.startswith(b"From ") for line in joined([text]).split(b"\r\n"))


def test_a_soft_break_stands_only_where_it_must() -> None:
    assert (
        joined(["Hello ", "Zoë", " of ", "Gent", "\nBye\n"]) == b"Hello Zo=C3=AB of Gent\r\nBye\r\n"
    )
    assert joined(["a" * 70, "b" * 10]) == b"a" * 70 + b"=\r\n" + b"b" * 10 + b"\r\n"


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 100 + "\0"])
def test_what_no_mail_can_carry_is_refused(text: str) -> None:
    with pytest.raises(MisuseError, match=r"U\+(0000|D800) cannot be sent"):
        quoted_printable_chunk(text)
    with pytest.raises(MisuseError, match="cannot be sent"):
        clean_text(text)


@settings(max_examples=50)
@given(content=st.binary(max_size=400))
def test_base64_reads_back_in_lines_of_76(content: bytes) -> None:
    encoded = base64_lines(content)
    assert base64.b64decode(encoded) == content
    assert encoded == base64.encodebytes(content).replace(b"\n", b"\r\n")


def test_the_shorter_encoding_is_chosen_by_content() -> None:
    assert not suits_base64("Grüße aus Köln, es ist alles gut hier")
    assert suits_base64("これは日本語の本文です")
    assert not suits_base64("")
