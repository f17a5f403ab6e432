"""A CSV file of recipients whose header has been understood."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mailrace.errors import MisuseError
from mailrace.mail.intake.columns import address_column, has_address_column, variable_names
from mailrace.mail.intake.lines import read_lines
from mailrace.mail.intake.records import Malformed, Record, read_records
from mailrace.mail.intake.source import open_csv

_DELIMITERS = (",", ";", "\t")
_NAMES_DELIMITER = re.compile(r"sep=([^\w\s\"\\]|\t)", re.IGNORECASE).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Where the rows are and how to read them.

    Attributes:
        path: A file that can be read more than once.
        name: What to call it in errors.
        delimiter: Comma, semicolon or tab, or what the file names.
        columns: Names as in the file, without space around them.
        variables: The template variable for each column.
        address_index: The column with the address.
    """

    path: Path
    name: str
    delimiter: str
    columns: tuple[str, ...]
    variables: tuple[str, ...]
    address_index: int

    def records(self) -> Iterator[Record | Malformed]:
        """Yields the rows after the header, from the beginning at every call.

        Raises:
            MisuseError: The file is gone or not UTF-8.
        """
        with open_csv(self.path) as stream:
            records = read_records(read_lines(stream, self.name), self.delimiter)
            _header(records, self.delimiter)
            yield from records


def open_table(path: Path, *, email_column: str | None = None, name: str | None = None) -> Table:
    """Reads the header line.

    The delimiter is the one among comma, semicolon and tab that gives an address column, and of
    several the one that gives most columns; or the one that a first line such as `sep=;` names.

    Args:
        path: A file that can be read more than once.
        email_column: The column with the addresses; the usual names are tried when `None`.
        name: What to call the file in errors, for example `standard input`; its path by default.

    Raises:
        MisuseError: No such file, not UTF-8, empty, a column without a name or with the same name
            as another, no address column.
    """
    name = str(path) if name is None else name
    named = _named_delimiter(path, name)
    headers = {d: _first(path, name, d) for d in ((named,) if named else _DELIMITERS)}
    columns = {d: _columns(first.row) for d, first in headers.items() if isinstance(first, Record)}
    if not columns:
        first = headers[named or ","]
        if isinstance(first, Malformed):
            problem = f"the header on line {first.line} of {name} cannot be read: {first.reason}"
            raise MisuseError(problem, hint="mend the quotes")
        raise MisuseError(f"{name} is empty", hint="its first line must name the columns")
    delimiter = max(
        columns, key=lambda d: (has_address_column(columns[d], email_column), len(columns[d]))
    )
    return Table(
        path=path,
        name=name,
        delimiter=delimiter,
        columns=columns[delimiter],
        address_index=address_column(columns[delimiter], email_column, name),
        variables=variable_names(columns[delimiter], name),
    )


def _first(path: Path, name: str, delimiter: str) -> Record | Malformed | None:
    with open_csv(path) as stream:
        return _header(read_records(read_lines(stream, name), delimiter), delimiter)


def _header(records: Iterator[Record | Malformed], delimiter: str) -> Record | Malformed | None:
    """Takes the header line, and the line that names the delimiter if there is one."""
    first = next(records, None)
    if isinstance(first, Record) and _NAMES_DELIMITER(delimiter.join(first.row)):
        return next(records, None)
    return first


def _named_delimiter(path: Path, name: str) -> str | None:
    """The delimiter named by the first line, as spreadsheets write and read it."""
    with open_csv(path) as stream:
        named = _NAMES_DELIMITER(next(read_lines(stream, name), "").rstrip("\r\n").strip('"'))
    return named.group(1) if named else None


def _columns(row: list[str]) -> tuple[str, ...]:
    # They are shown in errors and on terminals: one line, nothing that moves the cursor.
    shown = ("".join(c if c.isprintable() else " " for c in cell) for cell in row)
    return tuple(" ".join(cell.split()) for cell in shown)
