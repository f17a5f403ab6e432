"""Exit codes."""

from typing import Final

from mailrace.queue import children

DONE: Final = 0
FAILURES: Final = 1
BAD_INPUT: Final = 2
STOPPED: Final = 3
REPLACE: Final = children.RESTART
"""A worker was told to restart: start another one in its place (EX_TEMPFAIL of sysexits.h)."""
