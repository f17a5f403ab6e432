"""Writing to standard output and standard error, whoever still listens there."""

import os
import sys

import msgspec


def fill_standard_descriptors() -> None:
    """Puts the null device where whoever started us closed one of the three standard files.

    Otherwise the next file or socket gets its number, and the event loop aborts when it closes it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def tell(text: str) -> None:
    """Writes to standard output; that nobody can read it changes nothing about the work."""
    try:
        print(text, flush=True)
    except OSError:  # the reader has gone away, the disk is full
        _silence(1)


def note(text: str) -> None:
    """Writes to standard error, under the same rule."""
    if sys.stderr is None:  # closed by whoever started us; print would take standard output
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(2)


def as_json(value: object) -> str:
    """One JSON document, indented."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _silence(descriptor: int) -> None:
    # What is left in the buffer would fail once more when the interpreter flushes it at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
