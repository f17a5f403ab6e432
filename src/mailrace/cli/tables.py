"""Tables on standard output: whole, but for the texts at the end of a row on a terminal."""

import datetime as dt
import sys
from collections.abc import Collection, Iterable, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mailrace.cli.words import printable

# Wider than any row: nothing is cut while the columns are laid out.
_UNBOUND = 1_000_000
_TEXT_MIN = 20


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str],
    ends_in_text: bool = False,
) -> str:
    """Columns under their heads, two spaces apart.

    Args:
        right: The heads of the columns with numbers.
        ends_in_text: The last column can be long: it is cut at the edge of a terminal.
    """
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for head in heads:
        drawn.add_column(head, justify="right" if head in right else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    console = Console(file=StringIO(), width=_UNBOUND, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(drawn)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    if ends_in_text and sys.stdout is not None and sys.stdout.isatty():
        lines = cut(lines, max(Console().width, lines[0].rindex(heads[-1]) + _TEXT_MIN))
    return "\n".join(lines)


def cut(lines: Sequence[str], width: int) -> list[str]:
    """The lines, with an ellipsis at the end of those that are longer."""
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def time_of(unix_ms: int | None) -> str:
    """A moment in local time, to the second; a dash for none."""
    if unix_ms is None:
        return "-"
    return f"{dt.datetime.fromtimestamp(unix_ms / 1000).astimezone():%Y-%m-%d %H:%M:%S}"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None or value == "" else printable(str(value))
