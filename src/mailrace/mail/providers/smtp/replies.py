"""Bytes from the server to replies (RFC 5321 section 4.2), within limits a hostile server meets."""

import re
from typing import Final

from mailrace.mail.message import Reply

# RFC 5321 section 4.5.3.1.5 allows a reply line 512 octets; servers with long texts exceed it.
LINE_LIMIT_BYTES: Final = 4096
REPLY_LIMIT_BYTES: Final = 65_536
TEXT_LIMIT: Final = 500

# No reply begins with 1, and 6 to 9 do not exist; a dict is both the check and the conversion.
_CODES: Final = {b"%d" % code: code for code in range(200, 600)}
_ENHANCED: Final = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|$)")


class GarbledError(Exception):
    """The server sent something that is not SMTP; nothing after it can be trusted."""


class ReplyParser:
    """Cuts a stream into replies.

    A reply is its code and its text without codes, the lines of a longer one joined by LF. The
    text stays bytes because most replies are only looked at for their code: see `to_reply`.
    """

    __slots__ = ("_code", "_lines", "_size_bytes", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._code = 0
        self._lines: list[bytes] = []
        self._size_bytes = 0

    @property
    def pending(self) -> bool:
        """Whether part of a reply has arrived."""
        return bool(self._tail or self._code)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Takes what arrived and returns the replies that are now whole.

        Raises:
            GarbledError: Not SMTP, or over a limit. The parser is of no use afterwards.
        """
        if self._tail:
            data = self._tail + data
        replies: list[tuple[int, bytes]] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            code = _CODES.get(data[start : start + 3])
            # The common case first: "250 text\r\n" on its own.
            if code and not self._code and data[start + 3] == 32 and end - start < LINE_LIMIT_BYTES:
                stop = end - 1 if data[end - 1] == 13 else end
                replies.append((code, data[start + 4 : stop]))
            else:
                self._line(code, data[start:end].removesuffix(b"\r"), replies)
            start = end + 1
        self._tail = data[start:] if start else data
        if len(self._tail) > LINE_LIMIT_BYTES:
            raise GarbledError(f"a reply line longer than {LINE_LIMIT_BYTES} octets")
        return replies

    def _line(self, code: int | None, line: bytes, replies: list[tuple[int, bytes]]) -> None:
        if len(line) > LINE_LIMIT_BYTES:
            raise GarbledError(f"a reply line longer than {LINE_LIMIT_BYTES} octets")
        # RFC 5321 section 4.2: a client has to accept a code with nothing after it.
        if code is None or line[3:4] not in (b" ", b"-", b""):
            raise GarbledError(f"a line that is no reply: {clean(line[:60])!r}")
        if self._code and code != self._code:
            raise GarbledError(f"a reply with two codes, {self._code} and {code}")
        self._size_bytes += len(line)
        if self._size_bytes > REPLY_LIMIT_BYTES:
            raise GarbledError(f"a reply longer than {REPLY_LIMIT_BYTES} octets")
        self._lines.append(line[4:])
        self._code = code
        if line[3:4] != b"-":
            replies.append((code, b"\n".join(self._lines)))
            self._code = self._size_bytes = 0
            self._lines.clear()


def clean(text: bytes) -> str:
    """Text from a server made fit to show: one line, no control characters, at most 500 long."""
    shown = text.decode("utf-8", "replace")
    if not shown.isprintable():
        shown = "".join(mark if mark.isprintable() else " " for mark in shown)
    return shown.strip()[:TEXT_LIMIT]


def to_reply(code: int, text: bytes) -> Reply:
    """The reply as a value: enhanced code apart (RFC 2034), text cleaned.

    An enhanced code counts only if its class agrees with the code's first digit; servers repeat
    it on every line, and the text is kept without the repetitions.
    """
    if b"\n" not in text:
        enhanced, rest = _split(code, text)
        return Reply(code, enhanced, clean(rest))
    split = [_split(code, line) for line in text.split(b"\n")]
    enhanced = next((found for found, _ in split if found), "")
    return Reply(code, enhanced, clean(b" ".join(rest.strip() for _, rest in split)))


def _split(code: int, text: bytes) -> tuple[str, bytes]:
    found = _ENHANCED.match(text)
    if found is None or text[0] - 48 != code // 100:
        return "", text
    return found[1].decode(), text[found.end() :]
