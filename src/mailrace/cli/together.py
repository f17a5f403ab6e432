"""Signals that come together count as one."""

from math import inf
from typing import Final

_TOGETHER_S: Final = 0.5


class Together:
    """Tells a signal from its echo.

    `timeout`, for one, tells its child and then the whole group: nobody pressed a key twice.
    """

    def __init__(self) -> None:
        self._last_s = -inf

    def counts(self, now_s: float) -> bool:
        """Whether this one is more than an echo of the last one that counted."""
        if now_s - self._last_s < _TOGETHER_S:
            return False
        self._last_s = now_s
        return True
