"""Whether a process stays above its memory limit, told from samples."""


class Excess:
    """How long use has been above a limit without a sample that was not.

    A job that needs much for a moment is no reason to give a process up; one that never gives
    back what it took is.

    Args:
        hold_s: How long use has to stay above the limit.
    """

    __slots__ = ("_hold_s", "_since_s", "limit_bytes")

    def __init__(self, limit_bytes: int, *, hold_s: float) -> None:
        self.limit_bytes = limit_bytes
        self._hold_s = hold_s
        self._since_s: float | None = None

    def seen(self, used_bytes: int, now_s: float) -> bool:
        """Takes a sample; returns whether use has stayed above the limit."""
        if used_bytes <= self.limit_bytes:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s >= self._hold_s

    def forget(self) -> None:
        """Nobody looks for a while: nothing is known of that time."""
        self._since_s = None
