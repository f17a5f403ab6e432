"""How many retries a pool may make, so that retries do not finish off who is down already."""

from mailrace.errors import MisuseError
from mailrace.pool.ranges import LONGEST_S, SHORTEST_S, check_number
from mailrace.pool.window import SURE, SlidingCount


class RetryBudget:
    """Bounds retries by what is attempted for the first time.

    At most `share` of the first attempts of the last `window_s` seconds, and `least_per_s` times
    `window_s` on top, so that a pool with little to do may retry as well. When everything fails,
    the far side then sees a fifth more attempts instead of a multiple. One object is handed to
    all who share the far side. (The budgets of Finagle, tower's `TpsBudget` and failsafe-go.)

    It never allows more than that: a retry is remembered for at least the window (up to a ninth
    longer), a first attempt for at most the window (down to a tenth less).

    Args:
        share: Retries for a first attempt, 0 to 1.
        least_per_s: Retries a second that are always allowed, on the average over the window.
        window_s: Seconds that count.

    Raises:
        MisuseError: A value is out of range, or no retry would ever be allowed.
    """

    __slots__ = ("_firsts", "_reserve", "_retries", "_share")

    def __init__(
        self, *, share: float = 0.2, least_per_s: float = 10.0, window_s: float = 10.0
    ) -> None:
        check_number("share", share, least=0.0, most=1.0)
        check_number("least_per_s", least_per_s, least=0.0, most=1e6)
        check_number("window_s", window_s, least=SHORTEST_S, most=LONGEST_S)
        self._share = share
        self._reserve = least_per_s * window_s
        if share == 0 and self._reserve < 1:
            raise MisuseError(
                f"share is {share} and least_per_s {least_per_s}, which allows no retry",
                hint="give no RetryPolicy if nothing is to be retried",
            )
        self._firsts = SlidingCount(window_s)
        self._retries = SlidingCount(window_s / SURE)

    def attempted(self, now_s: float) -> None:
        """Counts a first attempt."""
        self._firsts.add(now_s)

    def spend(self, now_s: float) -> bool:
        """Counts a retry if there is one left; `False`, and nothing counted, if there is none."""
        allowed = self._share * self._firsts.total_at(now_s) + self._reserve
        if self._retries.total_at(now_s) + 1 > allowed:
            return False
        self._retries.add(now_s)
        return True
