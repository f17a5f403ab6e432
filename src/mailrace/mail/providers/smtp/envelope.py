"""What can be said about a message before a byte of it is sent."""

import re
from functools import lru_cache
from typing import Final

from mailrace.errors import MisuseError
from mailrace.mail.message import Answer, Message, Reply, Stage
from mailrace.mail.providers.smtp.extensions import Extensions

# Local part 64, @, domain 255 octets: RFC 5321 section 4.5.3.1.
_PATH_LIMIT_BYTES: Final = 320

# Anything that could end the path or the command is refused: controls (C0, DEL, C1, the Unicode
# line separators), and space, <, > and " unless within a quoted local part.
_UNSAFE: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_PATH: Final = re.compile(
    rf'(?:"(?:[^"\\{_UNSAFE}]|\\[^{_UNSAFE}])*"@)?[^\s<>"{_UNSAFE}]+',
)


def check(message: Message) -> None:
    """Refuses what must not get into an SMTP command; an address need not be a real one.

    Raises:
        MisuseError: An unsafe address, no recipient, or content that does not end in CRLF.
    """
    if not message.recipients:
        raise MisuseError("message has no recipient")
    if message.sender:
        _check_sender(message.sender, smtputf8=message.smtputf8)
    for recipient in message.recipients:
        _check_path("recipient", recipient, smtputf8=message.smtputf8)
    if not message.content.endswith(b"\r\n"):
        raise MisuseError("message content does not end in CRLF")


@lru_cache(maxsize=256)
def _check_sender(sender: str, *, smtputf8: bool) -> None:
    # A campaign has one sender: `benchmarks/bench_smtp.py`.
    _check_path("sender", sender, smtputf8=smtputf8)


def _check_path(role: str, path: str, *, smtputf8: bool) -> None:
    if _PATH.fullmatch(path) is None:
        raise MisuseError(
            f"{role} {path!a} is empty or has control characters, spaces or angle brackets",
            hint="give the bare address, such as ann@example.com",
        )
    ascii_only = path.isascii()
    if not ascii_only and not smtputf8:
        raise MisuseError(
            f"{role} {path!r} is not ASCII",
            hint="write the domain as A-labels, or set smtputf8 if it is the local part",
        )
    if (len(path) if ascii_only else len(path.encode())) > _PATH_LIMIT_BYTES:
        raise MisuseError(f"{role} {path[:40]!r}… is longer than {_PATH_LIMIT_BYTES} octets")


def parameters(message: Message, offered: Extensions) -> str | tuple[Answer, ...]:
    """The parameters of MAIL; or, where the server cannot take the message, the answers to give.

    Such a message is answered here, as the server would have answered it, and nothing is sent.
    """
    content = message.content
    text = ""
    if offered.size:
        if 0 < offered.size_bytes < len(content):
            limit = f"message of {len(content)} octets is over the limit of {offered.size_bytes}"
            return _refuse(message, Reply(552, "5.3.4", limit))
        text = f" SIZE={len(content)}"
    if not content.isascii():
        if not offered.eight_bit:
            return _refuse(message, Reply(554, "5.6.3", "server does not take 8-bit content"))
        text += " BODY=8BITMIME"
    if message.smtputf8:
        if not offered.smtputf8:
            return _refuse(
                message, Reply(553, "5.6.7", "server does not take addresses outside ASCII")
            )
        text += " SMTPUTF8"
    return text


def _refuse(message: Message, reply: Reply) -> tuple[Answer, ...]:
    return (Answer(Stage.MAIL, reply),) * len(message.recipients)
