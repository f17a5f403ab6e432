import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.message import Answer, Message, Reply, Stage
from mailrace.mail.providers.smtp.envelope import check, parameters
from mailrace.mail.providers.smtp.extensions import Extensions
from mailrace.mail.providers.smtp.states import Machine, State
from mailrace.mail.providers.smtp.transaction import Form, Transaction
from tests.support.smtp_values import CONTENT, message


@pytest.mark.parametrize(
    "path",
    [
        "bob@example.net",
        "postmaster",
        "a+b!#$%&'*/=?^_`{|}~-c@example.net",
        '"bob smith"@example.net',
        r'"a\"b\\<>c"@example.net',
        "bob@[192.0.2.1]",
        "bob@[IPv6:2001:db8::1]",
        "x" * 64 + "@" + "y" * 255,
    ],
)
def test_addresses_that_are_safe(path: str) -> None:
    check(message(path))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "bob@example.net\r\nRCPT TO:<eve@example.org",
        "bob@example.net\n",
        "bob\0@example.net",
        "bob\x7f@example.net",
        "bob\x85@example.net",
        "bob\u2028@example.net",
        "bob smith@example.net",
        "bob@example.net SIZE=1",
        "bob>@example.net",
        "<bob@example.net>",
        'bob"@example.net',
        '"bob@example.net',
        '"bob\r\n"@example.net',
        '"bob"x@example.net',
        "\udc80@example.net",
        "é@example.net",
        "x" * 321,
    ],
)
def test_addresses_that_are_not(path: str) -> None:
    with pytest.raises(MisuseError) as caught:
        check(message(path))
    assert str(caught.value).isprintable()
    with pytest.raises(MisuseError):
        check(Message(sender=path or "\n", recipients=("bob@example.net",), content=CONTENT))


@given(st.text(max_size=12), st.booleans())
def test_whatever_passes_cannot_leave_its_brackets(path: str, smtputf8: bool) -> None:
    mail = message(path, smtputf8=smtputf8)
    try:
        check(mail)
    except MisuseError:
        return
    machine = Machine()
    machine.state = State.READY
    lines = (
        Transaction(mail, "", machine, form=Form.GROUPED, chunked=False, reset=False, kept=False)
        .commands()
        .decode()
    )
    assert lines.count("\r") == lines.count("\n") == 3
    assert re.fullmatch(r'RCPT TO:<(?:"[^\r\n]*"@)?[^<>" ]+>', lines.split("\r\n")[1])


def test_the_null_path_and_missing_recipients() -> None:
    check(Message(sender="", recipients=("bob@example.net",), content=CONTENT))
    with pytest.raises(MisuseError, match="no recipient"):
        check(Message(sender="", recipients=(), content=CONTENT))


@pytest.mark.parametrize("content", [b"", b"x", b"x\n", b"x\r"])
def test_content_has_to_end_in_crlf(content: bytes) -> None:
    with pytest.raises(MisuseError, match="CRLF"):
        check(message(content=content))


FULL = Extensions(size=True, size_bytes=100, eight_bit=True, smtputf8=True)
POOR = Extensions()


def test_parameters() -> None:
    assert parameters(message(content=b"hello\r\n"), FULL) == " SIZE=7"
    assert parameters(message(content=b"hello\r\n"), POOR) == ""
    assert parameters(message(content=b"h\xc3\xa9\r\n"), FULL) == " SIZE=5 BODY=8BITMIME"
    assert parameters(message("é@x", content=b"a\r\n", smtputf8=True), FULL) == " SIZE=3 SMTPUTF8"
    assert parameters(message(content=b"x" * 101), Extensions(size=True)) == " SIZE=101"


def test_what_the_server_cannot_take_is_answered_for_everybody() -> None:
    def refusal(mail: Message, offered: Extensions) -> Reply:
        answers = parameters(mail, offered)
        assert isinstance(answers, tuple)
        assert len(answers) == len(mail.recipients)
        assert len(set(answers)) == 1
        assert isinstance(answers[0], Answer)
        assert answers[0].stage is Stage.MAIL
        assert answers[0].reply is not None
        return answers[0].reply

    big = refusal(message("a@x", "b@x", content=b"x" * 99 + b"\r\n"), FULL)
    assert (big.code, big.enhanced) == (552, "5.3.4")
    assert "101" in big.text
    eight = refusal(message(content=b"\xff\r\n"), POOR)
    assert (eight.code, eight.enhanced) == (554, "5.6.3")
    utf8 = refusal(message("é@x", smtputf8=True), POOR)
    assert (utf8.code, utf8.enhanced) == (553, "5.6.7")


def test_hello_is_read() -> None:
    assert Extensions.from_hello(
        b"mx.example at your service\nPIPELINING\nsize 5\nAUTH=LOGIN\nAUTH PLAIN CRAM-MD5\n"
        b"chunking\n8BITMIME\nSMTPUTF8\nSTARTTLS\n\nX-\xff"
    ) == Extensions(
        starttls=True,
        pipelining=True,
        chunking=True,
        eight_bit=True,
        smtputf8=True,
        size=True,
        size_bytes=5,
        auth=frozenset({"LOGIN", "PLAIN", "CRAM-MD5"}),
    )
    assert Extensions.from_hello(b"PIPELINING") == Extensions()
    assert Extensions.from_hello(b"x\nSIZE\nSIZE x") == Extensions(size=True)
