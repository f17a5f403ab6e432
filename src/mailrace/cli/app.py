"""The command and its subcommands; every mistake ends in one line and an exit code."""

import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Final, NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from mailrace.cli import jobchanges, jobs, keys, limits, queues, schedules, workers
from mailrace.cli.backup import backup, restore
from mailrace.cli.demo import demo
from mailrace.cli.exits import BAD_INPUT, STOPPED
from mailrace.cli.migrate import migrate
from mailrace.cli.output import fill_standard_descriptors, note
from mailrace.cli.send import send
from mailrace.cli.stats import stats
from mailrace.cli.status import status
from mailrace.cli.words import without_passwords
from mailrace.cli.worker import worker
from mailrace.errors import MailraceError, MisuseError

_Command = Callable[..., int]
COMMANDS: Final[Mapping[str, _Command]] = MappingProxyType(
    {
        "send": send,
        "status": status,
        "demo": demo,
        "worker": worker,
        "stats": stats,
        "migrate": migrate,
        "backup": backup,
        "restore": restore,
    }
)
GROUPS: Final[Mapping[str, tuple[str, Mapping[str, _Command]]]] = MappingProxyType(
    {
        "jobs": (
            "Looks at jobs, and decides about them.",
            {
                "": jobs.list_jobs,
                "list": jobs.list_jobs,
                "show": jobs.show,
                "dead": jobs.dead,
                "stats": jobs.stats,
                "retry": jobchanges.retry,
                "cancel": jobchanges.cancel,
                "reschedule": jobchanges.reschedule,
                "delete": jobchanges.delete,
            },
        ),
        "queues": (
            "Shows the queues, and sets what holds for them.",
            {
                "": queues.queues,
                "pause": queues.pause,
                "resume": queues.resume,
                "drain": queues.drain,
                "purge": queues.purge,
                "set": queues.set_queue,
                "why": queues.why,
            },
        ),
        "workers": (
            "Lists the processes that work on a store, and gives them orders.",
            {
                "": workers.workers,
                "pause": workers.pause,
                "resume": workers.resume,
                "drain": workers.drain,
                "stop": workers.stop,
                "restart": workers.restart,
                "scale": workers.scale,
                "start": workers.start,
                "reset-breakers": workers.reset_breakers,
            },
        ),
        "limits": (
            "Lists, sets and removes limits over all processes.",
            {
                "": limits.list_limits,
                "set": limits.set_limit,
                "remove": limits.remove,
                "why": limits.why,
            },
        ),
        "schedules": (
            "Lists, pauses and removes jobs that are made again and again.",
            {
                "": schedules.list_schedules,
                "pause": schedules.pause,
                "resume": schedules.resume,
                "remove": schedules.remove,
            },
        ),
        "keys": (
            "Lists the keys of sealed payloads, and changes them.",
            {
                "": keys.list_keys,
                "reseal": keys.reseal,
            },
        ),
    }
)
"""Commands with commands of their own; the empty name is what the group does by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    0: done. 1: done, with failures. 2: bad input, nothing was done. 3: stopped before the end.
    75: a worker that was told to restart, and is to be started again.
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
        help="Sends mail and runs durable jobs, fast and within limits. What was taken in is not"
        " lost; what may have been sent is not sent again unless you say so.",
        help_format="markdown",
        version_flags=["--version"],
        default_parameter=Parameter(negative=(), show_default=False),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for number, (name, command) in enumerate(COMMANDS.items()):
        app.command(command, name=name, help=_introduction(command), sort_key=number)
    for number, (name, (text, commands)) in enumerate(GROUPS.items(), start=len(COMMANDS)):
        app.command(_group(name, text, commands, number))
    return app


def _group(name: str, text: str, commands: Mapping[str, _Command], place: int) -> App:
    group = App(name=name, help=text, sort_key=place, help_format="markdown", version_flags=())
    for number, (word, command) in enumerate(commands.items()):
        if word:
            group.command(command, name=word, help=_introduction(command), sort_key=number)
        else:
            group.default(command)
    return group


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
        case UnusedCliTokensError(unused_tokens=[first, *_]) if chain == words[:1] and (
            first == words[1] and chain[0] in GROUPS
        ):
            there = ", ".join(filter(None, GROUPS[chain[0]][1]))
            problem = f'Unknown command "{first}"; there are {there}'
        case UnusedCliTokensError(unused_tokens=[first, *_]):
            problem = f"{first!r} is one word too many; put values with spaces in quotes"
        case _:
            problem = " ".join(str(error).split()).replace("...", "…").rstrip(".")
    return f"{problem}; try {' '.join(['mailrace', *chain, '--help'])}"


def _complain(line: str, code: int) -> int:
    note(f"mailrace: {without_passwords(line)}")
    return code


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
