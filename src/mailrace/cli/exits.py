"""Exit codes."""

from typing import Final

DONE: Final = 0
FAILURES: Final = 1
BAD_INPUT: Final = 2
STOPPED: Final = 3
