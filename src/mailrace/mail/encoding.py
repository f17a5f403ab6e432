"""Transfer encodings (RFC 2045 section 6): base64, and quoted-printable in pieces to be joined."""

import binascii
import re
from collections.abc import Callable, Iterable
from typing import Final

from mailrace.errors import MisuseError

_LINE_LIMIT: Final = 76
_SOFT_BREAK: Final = b"=\r\n"
_LINE_END: Final = b"\r\n"
_BLANKS: Final = (b" ", b"\t")
_LINE_ENDS: Final = re.compile("\r\n|\r")
_UNSENDABLE: Final = re.compile(r"[\x00\ud800-\udfff]").search

# A value that may stand in a quoted-printable line as it is, with room for the soft break.
_PLAIN: Final = re.compile(r"(?!\.|From )[\x20-\x3c\x3e-\x7e]{1,75}").fullmatch
_SHORT: Final = re.compile(r"(?!\.|From )[^\x00\r\n\ud800-\udfff]{1,75}").fullmatch
_ENCODED: Final = tuple(
    bytes((octet,)) if octet in b"\t " or (33 <= octet <= 126 and octet != 61) else b"=%02X" % octet
    for octet in range(256)
)

Chunk = tuple[bytes, int, int]
"""A piece of a text in quoted-printable: its octets, the length of its first line, and the length
of its last line, or -1 when it has only one. It begins as if at column 0, and its last line is at
most 75 long, not ended, and may have a blank at its end."""


def quoted_printable_chunk(text: str) -> Chunk:
    """Encodes a piece of a text, to be joined with others by `join_chunks`.

    CRLF and CR in the text count as line ends.

    Raises:
        MisuseError: The text has NUL or a lone surrogate.
    """
    if _PLAIN(text):
        return text.encode("ascii"), len(text), -1
    if _SHORT(text):
        # Nearly every value that is not plain: see `benchmarks/bench_mime.py`.
        line = binascii.b2a_qp(text.encode())
        if len(line) < _LINE_LIMIT:
            return line, len(line), -1
    *lines, rest = clean_text(text).split("\n")
    encoded = b"".join([*(_encode_line(line, ends=True) for line in lines), _encode_line(rest)])
    written = encoded.split(b"\r\n")
    return encoded, len(written[0]), len(written[-1]) if len(written) > 1 else -1


def join_chunks(chunks: Iterable[Chunk], write: Callable[[bytes], object]) -> None:
    """Writes chunks so that no line is longer than 76 and none ends in a blank; ends the last one.

    A soft line break (section 6.7 rule 5) stands only where the next chunk would not fit.
    """
    column = 0
    octets = b""
    for chunk in chunks:
        if column and (
            column + chunk[1] >= _LINE_LIMIT or (not chunk[1] and octets[-1:] in _BLANKS)
        ):
            write(_SOFT_BREAK)
            column = 0
        octets, first, last = chunk
        write(octets)
        column = last if last >= 0 else column + first
    if column:
        write(_SOFT_BREAK + _LINE_END if octets[-1:] in _BLANKS else _LINE_END)


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


def _encode_line(line: str, *, ends: bool = False) -> bytes:
    units = [_ENCODED[octet] for octet in line.encode("utf-8")]
    if ends and units and units[-1] in _BLANKS:
        units[-1] = b"=%02X" % ord(units[-1])
    # A dot is doubled on its way and "From " is quoted by mailbox files: some undo neither.
    if line.startswith((".", "From ")):
        units[0] = b"=%02X" % ord(units[0])
    return _wrap(units) + (_LINE_END if ends else b"")


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
