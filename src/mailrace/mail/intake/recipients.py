"""Rows to recipients: what is checked for each row before anything is sent."""

import re
from collections.abc import Callable, Iterator

import msgspec

from mailrace.errors import MisuseError
from mailrace.mail.addresses import address_key, check_address, parse_mailbox
from mailrace.mail.intake.records import Malformed, Record
from mailrace.mail.intake.rows import Rows

# Tab and line ends are data inside quotes; the other C0 characters, DEL, C1 and the line separators
# of Unicode never are: no header takes them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


class Recipient(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Somebody to write to.

    Attributes:
        line: Where the row begins in the file, from 1.
        address: As it goes into the envelope.
        key: Equal for two addresses that are the same mailbox.
        variables: Values by template variable, as in the file but with LF for every line end; the
            one of the address column has no space around it, and of `Ann <ann@example.com>` only
            what is between the brackets.
    """

    line: int
    address: str
    key: str
    variables: dict[str, str]


class Rejected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row that cannot be sent to.

    Attributes:
        line: Where the row begins in the file, from 1.
        reason: What is wrong with it, one line.
        row: Its cells; the beginning of the line as the only cell where it could not be read.
    """

    line: int
    reason: str
    row: tuple[str, ...]


def read_recipients(table: Rows) -> Iterator[Recipient | Rejected]:
    """Yields one value for every row that is not blank, in the order of the file.

    Raises:
        MisuseError: The file is gone or not UTF-8.
    """
    return (_check(record, table) for record in table.records())


def read_batches(
    table: Rows, *, size: int = 1000, rejected: Callable[[Rejected], None]
) -> Iterator[list[Recipient]]:
    """Yields the recipients in lists of `size`, the last one shorter; none is empty.

    Args:
        table: What to read.
        size: Recipients a list.
        rejected: Called with each row that is left out, before the list that comes after it.
    """
    batch: list[Recipient] = []
    for result in read_recipients(table):
        if isinstance(result, Rejected):
            rejected(result)
            continue
        batch.append(result)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _check(record: Record | Malformed, table: Rows) -> Recipient | Rejected:
    if isinstance(record, Malformed):
        return Rejected(line=record.line, reason=record.reason, row=(record.text,))
    line, row = record
    width = len(table.variables)
    if len(row) > width and not "".join(row[width:]).strip():
        # Spreadsheets write empty cells to the right of the table.
        row = row[:width]
    if len(row) != width:
        return _rejected(record, f"{_columns(len(row))} where the header has {width}")
    joined = "".join(row)
    # `isprintable` runs in C over what is usual, and is false also for harmless characters.
    if not joined.isprintable():
        if found := _CONTROL.search(joined):
            return _rejected(
                record, f"control character U+{ord(found[0]):04X} in {_where(row, table)}"
            )
        if "\r" in joined:
            row = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row]
    cell = row[table.address_index].strip()
    if not cell:
        return _rejected(record, "no address")
    try:
        if cell.endswith(">"):
            cell = address = parse_mailbox(cell).address
        else:
            address = check_address(cell)
    except MisuseError as error:
        return _rejected(record, error.problem)
    row[table.address_index] = cell
    variables = dict(zip(table.variables, row, strict=True))
    return Recipient(line=line, address=address, key=address_key(address), variables=variables)


def _rejected(record: Record, reason: str) -> Rejected:
    return Rejected(line=record.line, reason=reason, row=tuple(record.row))


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _where(row: list[str], table: Rows) -> str:
    """Returns the name of the first column with a control character."""
    return next(c for c, cell in zip(table.columns, row, strict=True) if _CONTROL.search(cell))
