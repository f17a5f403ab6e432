import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.mail.message import Reply
from mailrace.mail.providers.smtp.replies import (
    LINE_LIMIT_BYTES,
    REPLY_LIMIT_BYTES,
    GarbledError,
    ReplyParser,
    clean,
    to_reply,
)

_texts = st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"").rstrip(b"\r"))
_replies = st.lists(
    st.tuples(st.integers(200, 559), st.lists(_texts, min_size=1, max_size=4)), max_size=6
)


def _wire(code: int, lines: list[bytes]) -> bytes:
    head = b"".join(b"%d-%b\r\n" % (code, line) for line in lines[:-1])
    return head + b"%d %b\r\n" % (code, lines[-1])


@given(_replies, st.data())
def test_any_chunking_parses_the_same(
    replies: list[tuple[int, list[bytes]]], data: st.DataObject
) -> None:
    stream = b"".join(_wire(code, lines) for code, lines in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    parser = ReplyParser()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == [(code, b"\n".join(lines)) for code, lines in replies]
    assert not parser.pending


@pytest.mark.parametrize(
    "stream",
    [
        b"hello\r\n",
        b"2x0 ok\r\n",
        b"199 ok\r\n",
        b"600 ok\r\n",
        b"250ok\r\n",
        b"25\r\n",
        b"\r\n",
        b"250-one\r\n251 two\r\n",
        b"250-one\r\nand more\r\n",
        b"\x00\xff\xfe\n",
        b"250 " + b"x" * LINE_LIMIT_BYTES + b"\r\n",
        b"x" * (LINE_LIMIT_BYTES + 1),
        b"250-" + b"x" * (LINE_LIMIT_BYTES + 1),
        b"x" * 65_536 + b"\r\n",
    ],
)
def test_what_is_not_smtp_ends_the_conversation(stream: bytes) -> None:
    with pytest.raises(GarbledError) as caught:
        ReplyParser().feed(stream)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("line", [b"250-\r\n", b"250-" + b"x" * 1000 + b"\r\n"])
def test_an_endless_reply_is_cut_off_with_bounded_memory(line: bytes) -> None:
    parser = ReplyParser()
    taken = 0
    while taken + len(line) - 2 <= REPLY_LIMIT_BYTES:
        assert parser.feed(line) == []
        taken += len(line) - 2  # the limit does not count line ends
    with pytest.raises(GarbledError, match="longer than"):
        parser.feed(line)


def test_a_bare_code_and_a_bare_lf_are_taken() -> None:
    assert ReplyParser().feed(b"250\r\n250 x\n354\n") == [(250, b""), (250, b"x"), (354, b"")]


@pytest.mark.parametrize(
    ("code", "text", "reply"),
    [
        (250, b"2.0.0 Ok: queued as 4F", Reply(250, "2.0.0", "Ok: queued as 4F")),
        (250, b"Ok", Reply(250, "", "Ok")),
        (250, b"", Reply(250, "", "")),
        (550, b"5.1.1", Reply(550, "5.1.1", "")),
        (550, b"5.1.1 no\n5.1.1 such user", Reply(550, "5.1.1", "no such user")),
        (550, b"4.2.1 disagrees", Reply(550, "", "4.2.1 disagrees")),
        (550, b"5.1.1x no", Reply(550, "", "5.1.1x no")),
        (421, b"4.7.650 busy", Reply(421, "4.7.650", "busy")),
    ],
)
def test_enhanced_codes(code: int, text: bytes, reply: Reply) -> None:
    assert to_reply(code, text) == reply


@given(st.integers(200, 599), st.binary(max_size=5000))
def test_texts_are_fit_to_show(code: int, text: bytes) -> None:
    reply = to_reply(code, text)
    assert reply.text.isprintable()
    assert len(reply.text) <= 500


def test_control_characters_are_replaced() -> None:
    assert clean("a\x1b[31mb\r\x00\u202ec\u2028d é".encode()) == "a [31mb   c d é"
