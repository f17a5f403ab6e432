"""How a process learns that the supervisor which started it is gone."""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

from mailrace.errors import MisuseError

PARENT_FD: Final = "MAILRACE_PARENT_FD"
"""The variable in which a process is told its end of the pipe."""
SUPERVISOR: Final = "MAILRACE_SUPERVISOR"
"""The variable in which a process is told the name of its supervisor."""


class Lifeline:
    """A pipe to all processes of a supervisor: nobody writes, and only it holds the other end.

    However the supervisor ends, also by SIGKILL, the system closes its end, and every process
    reads the end of the pipe.

    Attributes:
        fd: The end that processes are given.
    """

    def __init__(self) -> None:
        self.fd, self._held_fd = os.pipe()
        self._open = True

    def close(self) -> None:
        """Idempotent."""
        if self._open:
            self._open = False
            os.close(self._held_fd)
            os.close(self.fd)


def parent_fd(environment: Mapping[str, str]) -> int | None:
    """A process's end of the pipe; `None` for one that nobody watches over.

    Raises:
        MisuseError: The variable holds no number.
    """
    text = environment.get(PARENT_FD, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise MisuseError(
            f"{PARENT_FD} is {text!r}", hint="leave it to the supervisor, or unset it"
        )
    return int(text)


def parent_gone(fd: int) -> asyncio.Event:
    """Is set when the supervisor is gone; watched from now on by the running loop.

    Raises:
        MisuseError: There is no such open file.
    """
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look() -> None:
        loop.remove_reader(fd)
        gone.set()

    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the argument has no name
        loop.add_reader(fd, look)
    except OSError as error:
        raise MisuseError(
            f"{PARENT_FD} is {fd}, and no file of that number is open",
            hint="leave it to the supervisor, or unset it",
        ) from error
    return gone
