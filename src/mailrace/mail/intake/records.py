"""Lines of text to rows of cells, with what cannot be read set apart instead of lost."""

import csv
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from mailrace.mail.intake.lines import LINE_LIMIT_BYTES, Overlong

RECORD_LIMIT_CHARACTERS = 1 << 20


class Record(NamedTuple):
    """One row; `line` is the number of its first line, from 1."""

    line: int
    row: list[str]


class Malformed(NamedTuple):
    """A line that is not CSV; reading goes on at the next line."""

    line: int
    reason: str
    text: str


def read_records(lines: Iterator[str], delimiter: str) -> Iterator[Record | Malformed]:
    """Yields every row but the blank ones.

    Quotes are read strictly: text after a closing quote is an error. A lenient reader takes
    everything between an unclosed quote and the next one, hundreds of rows away, for one value.
    After such an error only the line that opened the record is given up.

    A value may have `csv.field_size_limit()` characters, a row `RECORD_LIMIT_CHARACTERS`.
    """
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    taken = feed.taken
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLargeError) as error:
            yield Malformed(feed.first_line, _reason(error, taken), taken[0].rstrip("\r\n"))
            feed.give_back()
            continue
        if len(row) > 1 or not taken[0].isspace():
            yield Record(feed.first_line, row)
        taken.clear()


class _TooLargeError(Exception):
    """The record in hand is over its limit."""


class _Feed:
    """The lines, and those among them that the record in hand has taken so far."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._given = 0
        self._size = 0
        self.taken: list[str] = []

    @property
    def first_line(self) -> int:
        return self._given - len(self.taken) + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._given += 1
        self._size = self._size + len(line) if self.taken else len(line)
        self.taken.append(line)
        if self._size > RECORD_LIMIT_CHARACTERS or line.__class__ is Overlong:
            raise _TooLargeError
        return line

    def give_back(self) -> None:
        """Hands out again what the record has taken, but for its first line."""
        self._given -= len(self.taken) - 1
        self._again.extendleft(reversed(self.taken[1:]))
        self.taken.clear()


def _reason(error: Exception, taken: list[str]) -> str:
    if isinstance(taken[0], Overlong) or len(taken[0]) > RECORD_LIMIT_CHARACTERS:
        return f"line is longer than {LINE_LIMIT_BYTES} bytes"
    if len(taken) == 1 and "limit" in str(error):
        return f"a value is longer than {csv.field_size_limit()} characters"
    if len(taken) == 1 and "expected after" in str(error):
        return "text after a closing quote"
    return "a quote is opened and not closed"
