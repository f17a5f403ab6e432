"""The command and its subcommands; every mistake ends in one line and an exit code."""

import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from mailrace.cli.demo import demo
from mailrace.cli.exits import BAD_INPUT, STOPPED
from mailrace.cli.output import fill_standard_descriptors, note
from mailrace.cli.send import send
from mailrace.cli.status import status
from mailrace.cli.words import without_passwords
from mailrace.errors import MailraceError, MisuseError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    0: done. 1: done, with failures. 2: bad input, nothing was done. 3: stopped before the end.
    """
    fill_standard_descriptors()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _termination_like_interruption():
            return _run(words)
    except CycloptsError as error:
        return _complain(_usage(error, words), BAD_INPUT)
    except MisuseError as error:
        return _complain(str(error), BAD_INPUT)
    except MailraceError as error:
        return _complain(str(error), STOPPED)
    except KeyboardInterrupt:
        return _complain("stopped; the same command goes on from here", STOPPED)
    except BrokenPipeError:
        return STOPPED


def _app() -> App:
    app = App(
        name="mailrace",
        help="Mail that goes out fast, within limits, and is never lost or sent twice.",
        help_format="plaintext",
        version_flags=["--version"],
        default_parameter=Parameter(negative=(), show_default=False),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    commands: tuple[Callable[..., int], ...] = (send, status, demo)
    for number, command in enumerate(commands):
        app.command(command, help=_introduction(command), sort_key=number)
    return app


def _introduction(command: Callable[..., int]) -> str:
    """The docstring above its arguments, with its paragraphs as one line each."""
    text = (inspect.getdoc(command) or "").partition("\n\nArgs:")[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _run(words: list[str]) -> int:
    command, bound, ignored = _app().parse_args(words)
    if "arguments" in ignored:
        bound.arguments["arguments"] = tuple(words)
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else 0


@contextmanager
def _termination_like_interruption() -> Iterator[None]:
    """SIGTERM is answered like Ctrl-C, whatever is going on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage(error: CycloptsError, words: list[str]) -> str:
    chain = [word for word in error.command_chain or () if word in words]
    match error:
        case MissingArgumentError(argument=argument) if argument is not None:
            what = f"a value for {argument.name}" if argument.name in words else argument.name
            problem = f"{' '.join(['mailrace', *chain])} needs {what}"
        case UnusedCliTokensError(unused_tokens=[first, *_]):
            problem = f"{first!r} is one word too many; put values with spaces in quotes"
        case _:
            problem = " ".join(str(error).split()).rstrip(".")
    return f"{problem}; try {' '.join(['mailrace', *chain, '--help'])}"


def _complain(line: str, code: int) -> int:
    note(f"mailrace: {without_passwords(line)}")
    return code


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
