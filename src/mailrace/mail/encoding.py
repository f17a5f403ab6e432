"""Transfer encodings (RFC 2045 section 6): base64, and quoted-printable in pieces to be joined."""

import binascii
import re
from typing import Final

from mailrace.errors import MisuseError

_LINE_LIMIT: Final = 76
_SOFT_BREAK: Final = b"=\r\n"
_LINE_ENDS: Final = re.compile("\r\n|\r")
_UNSENDABLE: Final = re.compile(r"[\x00\ud800-\udfff]").search

# A value that may stand in a quoted-printable line as it is, with room for the soft break.
_PLAIN: Final = re.compile(r"(?!\.|From )[\x20-\x3c\x3e-\x7e]{1,75}").fullmatch
_SHORT: Final = re.compile(r"(?!\.|From )[^\x00\r\n\ud800-\udfff]{1,75}").fullmatch
_ENCODED: Final = tuple(
    bytes((octet,)) if octet in b"\t " or (33 <= octet <= 126 and octet != 61) else b"=%02X" % octet
    for octet in range(256)
)


def quoted_printable_chunk(text: str) -> bytes:
    r"""Encodes a piece of a text so that encoded pieces can be joined byte by byte.

    A piece begins at column 0 and ends in a line end of its own: a real one if the text ends in
    one, else a soft line break (section 6.7 rule 5). So no piece needs to know its neighbours.
    CRLF and CR in the text count as line ends.

    Raises:
        MisuseError: The text has NUL or a lone surrogate.
    """
    if _PLAIN(text):
        return text.encode("ascii") + _SOFT_BREAK
    if _SHORT(text):
        # Nearly every value that is not plain: see `benchmarks/bench_mime.py`.
        line = binascii.b2a_qp(text.encode())
        if len(line) < _LINE_LIMIT:
            return line + _SOFT_BREAK
    *lines, rest = clean_text(text).split("\n")
    encoded = [_encode_line(line, end=b"\r\n") for line in lines]
    if rest:
        encoded.append(_encode_line(rest, end=_SOFT_BREAK))
    return b"".join(encoded)


def clean_text(text: str) -> str:
    r"""Body text with `\n` as its only line end.

    Raises:
        MisuseError: The text has NUL or a lone surrogate, which no mail can carry.
    """
    found = _UNSENDABLE(text)
    if found:
        raise MisuseError(
            f"character U+{ord(found.group()):04X} cannot be sent in a body", hint="take it out"
        )
    return _LINE_ENDS.sub("\n", text) if "\r" in text else text


def _encode_line(line: str, *, end: bytes) -> bytes:
    units = [_ENCODED[octet] for octet in line.encode("utf-8")]
    if end != _SOFT_BREAK and units and units[-1] in b"\t ":
        units[-1] = b"=%02X" % ord(units[-1])
    # A dot is doubled on its way and "From " is quoted by mailbox files: some undo neither.
    if line.startswith((".", "From ")):
        units[0] = b"=%02X" % ord(units[0])
    return _wrap(units) + end


def _wrap(units: list[bytes]) -> bytes:
    wrapped, column = bytearray(), 0
    for unit in units:
        if column + len(unit) >= _LINE_LIMIT:
            wrapped += _SOFT_BREAK
            column = 0
        # What may not begin a line: see `_encode_line`.
        written = b"=%02X" % ord(unit) if column == 0 and unit in (b".", b"F") else unit
        wrapped += written
        column += len(written)
    return bytes(wrapped)


def base64_lines(content: bytes) -> bytes:
    """Encodes octets as base64 in lines of 76, each with CRLF; nothing for nothing."""
    line = binascii.b2a_base64(content, newline=False)
    return b"".join(
        [line[start : start + _LINE_LIMIT] + b"\r\n" for start in range(0, len(line), _LINE_LIMIT)]
    )


def suits_base64(text: str) -> bool:
    """Whether a text is shorter in base64 than in quoted-printable.

    Quoted-printable costs two octets more for each that must be encoded, base64 a third of all.
    """
    octets = len(text.encode("utf-8", "replace"))
    ascii_octets = sum(map(str.isascii, text))
    return (octets - ascii_octets + text.count("=")) * 6 > octets
