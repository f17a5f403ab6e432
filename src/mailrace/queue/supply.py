"""How many jobs to claim, and when: a stock no larger than it needs to be."""

from typing import Final

# A stock that lasts about this long makes a claim's round trip disappear.
_LASTS_S: Final = 0.25
# The next claim is asked for while so much of the last one is left: with half of it the workers run
# dry where results are written at the same time (benchmarks/bench_queue.py).
_LOW: Final = 0.75


class Supply:
    """Grows with the speed at which the stock is used up.

    A slow sender does not sit on jobs that another process could do.

    Args:
        most: Jobs in stock at most.
    """

    def __init__(self, workers: int, most: int) -> None:
        self._most = most
        self._least = min(workers, most)
        self._claim = self._least
        self._claimed_s = float("-inf")
        self._found_none = False

    def is_low(self, stock: int) -> bool:
        """Whether there should be more."""
        return stock <= self._claim * _LOW

    def calls(self, stock: int) -> bool:
        """Whether more should be claimed at once: not where the last claim found nothing."""
        return not self._found_none and self.is_low(stock)

    def look_again(self) -> None:
        """Something has changed since the last claim."""
        self._found_none = False

    def wanted(self, stock: int, now_s: float) -> int:
        """How many jobs the claim that now follows should ask for.

        Twice as many as the last one if that was used up at once, half as many if it lasted long:
        to be asked once a claim.
        """
        if now_s - self._claimed_s < _LASTS_S:
            self._claim = min(self._most, self._claim * 2)
        elif now_s - self._claimed_s > 4 * _LASTS_S:
            self._claim = max(self._least, self._claim // 2)
        return max(1, min(self._claim, self._most - stock))

    def claimed(self, jobs: int, now_s: float) -> None:
        """What the claim found."""
        self._found_none = not jobs
        if jobs:
            self._claimed_s = now_s
