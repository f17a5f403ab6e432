"""Bytes of a file to lines of text, in memory that does not depend on the file."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from mailrace.errors import MisuseError

LINE_LIMIT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_KEPT_OF_OVERLONG_BYTES = 200
_SAVE_AS = "save the file as UTF-8 (in a spreadsheet: “CSV UTF-8”)"


class Overlong(str):
    """The beginning of a line that is over `LINE_LIMIT_BYTES`; the rest of it was skipped."""

    __slots__ = ()


def read_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yields the lines with their ends, which may be LF, CRLF or CR.

    Only those three end a line: `str.splitlines` would also cut at U+2028 and its like, which are
    data. A byte order mark is dropped.

    Args:
        stream: Read from where it stands, which must be the beginning.
        name: What to call the file in errors.

    Raises:
        MisuseError: The bytes are not UTF-8.
    """
    data = stream.read(_CHUNK_BYTES)
    _refuse_other_formats(data, name)
    number = offset = 0
    if data.startswith(codecs.BOM_UTF8):
        data, offset = data[3:], 3
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        lines = data.splitlines(keepends=True)
        # The last line may go on in the next chunk, and a CR at its end may be half of a CRLF.
        rest = lines.pop() if chunk and lines and not lines[-1].endswith(b"\n") else b""
        yield from _decode(lines, number, offset, name)
        number += len(lines)
        offset += len(data) - len(rest)
        if not chunk:
            return
        if len(rest) > LINE_LIMIT_BYTES:
            yield Overlong(rest[:_KEPT_OF_OVERLONG_BYTES].decode(errors="ignore"))
            number += 1
            skipped, rest = _skip_line(stream, rest + chunk)
            offset += skipped
            chunk = b""
        data = rest + chunk


def _decode(lines: list[bytes], number: int, offset: int, name: str) -> list[str]:
    try:
        return [line.decode() for line in lines]
    except UnicodeDecodeError:
        pass
    for line in lines:
        number += 1
        try:
            line.decode()
        except UnicodeDecodeError as error:
            at = offset + error.start
            problem = f"{name} is not UTF-8: line {number}, byte {at} is 0x{line[error.start]:02x}"
            raise MisuseError(problem, hint=_SAVE_AS) from None
        offset += len(line)
    raise AssertionError("one of the lines did not decode")


def _skip_line(stream: BinaryIO, data: bytes) -> tuple[int, bytes]:
    """Returns how many bytes the line at the front of `data` takes, and what follows it."""
    skipped = 0
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        first = data.splitlines(keepends=True)[0] if data else b""
        ended = first.endswith(b"\n") or len(first) < len(data)
        if ended or not chunk:
            return skipped + len(first), data[len(first) :] + chunk
        # A CR at the very end is kept back: the LF that belongs to it may come next.
        kept = 1 if data.endswith(b"\r") else 0
        skipped += len(data) - kept
        data = data[len(data) - kept :] + chunk


def _refuse_other_formats(head: bytes, name: str) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
        raise MisuseError(f"{name} is UTF-16, not UTF-8", hint=_SAVE_AS)
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        hint = "export the sheet as CSV in UTF-8"
        raise MisuseError(f"{name} is a spreadsheet, not a CSV file", hint=hint)
