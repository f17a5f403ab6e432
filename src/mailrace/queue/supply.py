"""How many jobs to claim, and when: a stock no larger than it needs to be."""

# A stock that lasts about this long makes a claim's round trip disappear.
_LASTS_S = 0.25


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
        self._filled_s = float("-inf")

    def is_low(self, stock: int) -> bool:
        return stock <= self._claim // 2

    def wanted(self, stock: int, now_s: float) -> int:
        """How many jobs the claim that now follows should ask for.

        Twice as many as the last one if that was used up at once, half as many if it lasted long:
        to be asked once a claim.
        """
        if now_s - self._filled_s < _LASTS_S:
            self._claim = min(self._most, self._claim * 2)
        elif now_s - self._filled_s > 4 * _LASTS_S:
            self._claim = max(self._least, self._claim // 2)
        return max(1, min(self._claim, self._most - stock))

    def filled(self, now_s: float) -> None:
        """Something was claimed; nothing is said of a claim that found nothing."""
        self._filled_s = now_s
