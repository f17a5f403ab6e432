"""The command and its subcommands; every mistake ends in one line and an exit code."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from mailrace.cli.demo import demo
from mailrace.cli.exits import BAD_INPUT, STOPPED
from mailrace.cli.send import send
from mailrace.cli.status import status
from mailrace.errors import MailraceError, MisuseError

app = App(
    name="mailrace",
    help="Mail that goes out fast, within limits, and is never lost or sent twice.",
    version_flags=["--version"],
    result_action="return_value",
)
app.command(send)
app.command(status)
app.command(demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    0: done. 1: done, with failures. 2: bad input, nothing was done. 3: stopped before the end.
    """
    try:
        code = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            print_error=False,
        )
    except CycloptsError as error:
        return _complain(" ".join(str(error).split()) + " Try --help.", BAD_INPUT)
    except MisuseError as error:
        return _complain(str(error), BAD_INPUT)
    except MailraceError as error:
        return _complain(str(error), STOPPED)
    except KeyboardInterrupt:
        return _complain("stopped; nothing was sent", STOPPED)
    except BrokenPipeError:
        return STOPPED
    return code if isinstance(code, int) else 0


def _complain(line: str, code: int) -> int:
    print(f"mailrace: {line}", file=sys.stderr)
    return code
