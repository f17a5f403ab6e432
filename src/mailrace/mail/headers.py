"""Header lines as bytes: encoded, folded, and never two where one was meant.

Lines are folded (RFC 5322 section 2.2.3) at 76 characters wherever there is a place to do it, which
serves RFC 2047 as well as the 78 of RFC 5322, and at 998 always. No line is only white space, since
old readers take such a line for the end of the headers.
"""

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from mailrace.errors import MisuseError
from mailrace.mail.addresses import Mailbox
from mailrace.mail.controls import check_controls, shortened
from mailrace.mail.encodedwords import WORD_LIMIT, encoded_words

_LINE_LIMIT: Final = 76
_SPACES_AHEAD: Final = re.compile("(?<! )(?= )")
# A longer run without a space is sent as encoded words, which can be folded.
_UNBROKEN_LIMIT: Final = 900
_PHRASE_AND_REST: Final = re.compile(r"([^<>,:;@()]+)(<[\x20-\x7e]+)").fullmatch
_PHRASE_LIMIT: Final = 60
_ATOMS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?: [A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*"
).fullmatch
_MESSAGE_ID_LEFT: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*"
).fullmatch
_MESSAGE_ID_LEFT_LIMIT: Final = 200
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def encode_unstructured(name: str, text: str) -> bytes:
    """One unstructured header (Subject and most others) with its CRLF.

    Raises:
        MisuseError: The text has control characters.
    """
    if text.isascii() and text.isprintable():
        if "=?" not in text and text.strip(" ") == text:
            if len(name) + len(text) <= _LINE_LIMIT - 2:
                return f"{name}: {text}\r\n".encode() if text else f"{name}:\r\n".encode()
            words = _SPACES_AHEAD.split(text)
            if max(map(len, words)) <= _UNBROKEN_LIMIT:
                return _folded(name, words)
    else:
        check_controls(name, text)
    return _folded(name, _spaced(encoded_words(text, first_limit=_room_after(name))))


def encode_structured(name: str, text: str, *, phrase: bool) -> bytes:
    """One header such as List-Id or References with its CRLF: only its words are encoded.

    Args:
        name: Name of the header.
        text: Its value.
        phrase: Whether there may be words in any script before its `<…>`.

    Raises:
        MisuseError: It has control characters, other text that is not ASCII, or no place to fold.
    """
    check_controls(name, text)
    text = text.strip(" ")
    if text.isascii():
        words = _SPACES_AHEAD.split(text)
    else:
        found = _PHRASE_AND_REST(text) if phrase else None
        if not found:
            raise MisuseError(
                f"{name}: {shortened(text)} has characters that are not ASCII",
                hint="only words before <…> may have any" if phrase else "this header takes none",
            )
        spoken = encoded_words(found[1].strip(' "'), first_limit=_room_after(name))
        words = [*_spaced(spoken), *_SPACES_AHEAD.split(f" {found[2]}")]
    if max(map(len, words)) > _UNBROKEN_LIMIT:
        raise MisuseError(f"{name}: {shortened(text)} is too long", hint="put spaces into it")
    return _folded(name, words) if text else f"{name}:\r\n".encode()


def encode_mailbox(name: str, mailbox: Mailbox) -> bytes:
    """One header of one mailbox (From, To, Reply-To) with its CRLF.

    A local part that is not ASCII stands as UTF-8 (RFC 6532): the message then needs SMTPUTF8.
    """
    if not mailbox.name and len(name) + len(mailbox.address) <= _LINE_LIMIT - 2:
        return f"{name}: {mailbox.address}\r\n".encode()
    return _folded(name, _mailbox_words(mailbox, first_limit=_room_after(name)))


def encode_mailboxes(name: str, mailboxes: Iterable[Mailbox]) -> bytes:
    """One header of several mailboxes with its CRLF.

    Raises:
        MisuseError: There is none.
    """
    words: list[str] = []
    for mailbox in mailboxes:
        if words:
            words[-1] += ","
            first, *rest = _mailbox_words(mailbox)
            words += [f" {first}", *rest]
        else:
            words = _mailbox_words(mailbox, first_limit=_room_after(name))
    if not words:
        raise MisuseError(f"{name}: no mailbox given")
    return _folded(name, words)


def _mailbox_words(mailbox: Mailbox, *, first_limit: int = WORD_LIMIT) -> list[str]:
    name = mailbox.name
    if not name:
        return [mailbox.address]
    check_controls("display name", name)
    address = f" <{mailbox.address}>"
    if len(name) <= _PHRASE_LIMIT and name.isascii() and "=?" not in name:
        return [name if _ATOMS(name) else quoted(name), address]
    return [*_spaced(encoded_words(name, first_limit=first_limit)), address]


def encode_message_id(local: str, domain: str) -> bytes:
    """The Message-ID header with its CRLF.

    Raises:
        MisuseError: The part before the @ is not a dot-atom of at most 200 characters.
    """
    if not _MESSAGE_ID_LEFT(local) or len(local) > _MESSAGE_ID_LEFT_LIMIT:
        raise MisuseError(f"Message-ID: {shortened(local)} is not a dot-atom")
    return f"Message-ID: <{local}@{domain}>\r\n".encode("ascii")


@lru_cache(maxsize=4)
def encode_date(unix_s: int) -> bytes:
    """The Date header with its CRLF, in UTC (RFC 5322 section 3.3)."""
    moment = time.gmtime(unix_s)
    return (
        f"Date: {_DAYS[moment.tm_wday]}, {moment.tm_mday:02} {_MONTHS[moment.tm_mon - 1]} "
        f"{moment.tm_year:04} {moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02} +0000\r\n"
    ).encode("ascii")


def quoted(text: str) -> str:
    """A quoted-string (RFC 5322 section 3.2.4) of printable ASCII."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _spaced(words: list[str]) -> list[str]:
    return [words[0], *(f" {word}" for word in words[1:])]


def _room_after(name: str) -> int:
    """How long the first encoded word may be, so that it fits beside the name."""
    return _LINE_LIMIT - len(f"{name}: ")


def _folded(name: str, words: list[str]) -> bytes:
    """Joins words into lines; each word but the first brings the white space before it.

    The first word always stands beside the name: some readers keep the space of a fold there.
    """
    lines, line = [], f"{name}: {words[0]}"
    for word in words[1:]:
        if len(line) + len(word) > _LINE_LIMIT:
            lines.append(line)
            line = word
        else:
            line += word
    lines.append(line)
    return "\r\n".join([*lines, ""]).encode()
