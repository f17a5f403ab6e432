"""A process as a supervisor starts them in `test_supervisor.py`: it tells, and does as it is told.

Arguments: the pipe to tell on, the number of its place, and what it is like. Standard library
only, so that it starts at once.
"""

import os
import select
import signal
import sys
from types import FrameType

REPORTS, NUMBER, LIKE = sys.argv[1:4]
told = 0


def tell(what: str) -> None:
    with open(REPORTS, "a", encoding="utf-8") as reports:  # noqa: PTH123 - starts sooner
        reports.write(f"{what} {NUMBER} {os.getpid()}\n")


def end(number: int, _: FrameType | None) -> None:
    global told  # noqa: PLW0603 - a signal handler has nowhere else to count
    told += 1
    tell(f"term{told}")
    if LIKE == "slow" and told < 2:
        return
    if LIKE == "stubborn":
        return
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(0))
signal.signal(signal.SIGINT, lambda *_: tell("interrupted"))
if LIKE == "broken":
    sys.exit(3)
if LIKE == "restarting":
    sys.exit(75)
tell("ready")
select.select([int(os.environ["MAILRACE_PARENT_FD"])], [], [])
tell("orphan")
