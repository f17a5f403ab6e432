"""The file of recipients as something that can be read twice."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mailrace.errors import MisuseError


@contextmanager
def spool(stream: BinaryIO, *, directory: Path | None = None) -> Iterator[Path]:
    """Copies a stream that can be read once to a temporary file, gone at the end of the block.

    Args:
        stream: Read to its end, in pieces.
        directory: Where the file goes; the system's temporary directory when `None`.

    Raises:
        MisuseError: The copy could not be written.
    """
    descriptor, name = tempfile.mkstemp(prefix="mailrace-", suffix=".csv", dir=directory)
    path = Path(name)
    try:
        try:
            with os.fdopen(descriptor, "wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 16)
        except OSError as error:
            problem = f"cannot keep a copy of the input in {path}: {error.strerror}"
            raise MisuseError(problem, hint="set TMPDIR to a directory with room") from error
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def open_source(name: str, standard_input: BinaryIO) -> Iterator[Path]:
    """Gives a path that can be read more than once for what a person named.

    Args:
        name: A path, or `-` for the standard input. A named pipe is spooled as well.
        standard_input: Read only for `-`.

    Raises:
        MisuseError: There is no such file, it is a directory, or it may not be read.
    """
    if name == "-":
        with spool(standard_input) as copy:
            yield copy
        return
    path = Path(name)
    with open_csv(path) as stream:
        regular = path.is_file()
        if not regular:
            with spool(stream) as copy:
                yield copy
    if regular:
        yield path


def open_csv(path: Path) -> BinaryIO:
    """Opens a file of recipients for reading; every refusal is a `MisuseError`."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise MisuseError(f"there is no file {path}", hint="check the path") from None
    except IsADirectoryError:
        problem = f"{path} is a directory"
        raise MisuseError(problem, hint="name the CSV file in it") from None
    except PermissionError:
        problem = f"{path} may not be read"
        raise MisuseError(problem, hint="check its permissions") from None
    except (OSError, ValueError) as error:
        raise MisuseError(f"{path} cannot be opened: {error}", hint="check the path") from None
