"""The file of rows that were left out, in a form that can be mended and sent."""

import csv
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from mailrace.errors import MisuseError
from mailrace.mail.intake.recipients import Rejected
from mailrace.mail.intake.rows import Rows

if TYPE_CHECKING:
    from _csv import Writer


def rejected_path(name: str) -> Path:
    """Returns where the rejected rows of the named file go: `people.rejected.csv` beside it.

    Standard input, `-`, has `stdin.rejected.csv` in the working directory.
    """
    path = Path("stdin.csv" if name == "-" else name)
    return path.with_name(f"{path.stem}.rejected.csv")


class RejectedFile:
    """Writes rejected rows with their line and reason, as a context manager.

    The columns are those of the file, then the line and the reason, then cells that the header
    has no column for. The file appears whole at the end of the block, takes the place of an older
    one, and is not there at all when nothing was rejected or the block raised.

    Attributes:
        path: Where the file will be.
        count: Rows written so far.
    """

    def __init__(self, path: Path, table: Rows) -> None:
        self.path = path
        self.count = 0
        self._table = table
        self._temporary: Path | None = None
        self._stream: IO[str] | None = None
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, rejected: Rejected) -> None:
        """Adds a row.

        Raises:
            MisuseError: The file cannot be written.
        """
        try:
            writer = self._writer or self._begin()
            width = len(self._table.columns)
            cells = list(rejected.row)
            cells += [""] * (width - len(cells))
            writer.writerow([*cells[:width], rejected.line, rejected.reason, *cells[width:]])
        except OSError as error:
            raise self._refusal(error) from error
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is None or self._temporary is None:
            return
        try:
            self._stream.close()
            if kind is None:
                self._temporary.replace(self.path)
        except OSError as failure:
            raise self._refusal(failure) from failure
        finally:
            self._temporary.unlink(missing_ok=True)

    def _begin(self) -> "Writer":
        descriptor, name = tempfile.mkstemp(
            prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent
        )
        self._temporary = Path(name)
        self._stream = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._stream, delimiter=self._table.delimiter)
        columns = self._table.columns
        self._writer.writerow([*columns, _free("line", columns), _free("reason", columns)])
        return self._writer

    def _refusal(self, error: OSError) -> MisuseError:
        problem = f"cannot write the rejected rows to {self.path}: {error.strerror}"
        return MisuseError(problem, hint="make room there or make the directory writable")


def _free(name: str, columns: tuple[str, ...]) -> str:
    """Returns `name`, with `rejected_` in front of it as often as it takes to be a new column."""
    while name in columns:
        name = f"rejected_{name}"
    return name
