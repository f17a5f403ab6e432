"""From where claims look for due jobs: decisions only. Pure.

The index that claims follow keeps an entry for every job that was taken until the last transaction
that might still see it has ended. While somebody holds one open, a look from the start walks over
all of them (300,000 dead entries: 100 ms and more for each claim). So once such a look has become
costly, claims begin where the last one of their flow ended, and looks from the start, which find
what was released or came late, are made only as often as they can be afforded.
"""

import math
from collections.abc import Sequence
from typing import Final

from mailrace.queue.flows import Want

CHEAP_S: Final = 0.02
"""A look from the start that takes no longer is made every time."""
EVERY_S: Final = 1.0
REST: Final = 10
"""A costly one is made again after so many times its cost."""
REST_MAX_S: Final = 10.0
"""But no later: what took that long was held up by something else, a network or a lock."""
MARGIN_MS: Final = 20
"""How much earlier than the last job taken a look begins: an enqueue may commit later than
another that began after it. Most do it within this time; the others wait for a look from the start.
"""
_FLOWS_MAX = 10_000


class Positions:
    """Where the claims of one process stand."""

    def __init__(self) -> None:
        self._reached_ms: dict[tuple[str, str, int], int] = {}
        self._full_at_s = -math.inf
        self._full_cost_s = 0.0

    def full(self, now_s: float) -> bool:
        """Whether the next look begins at the start."""
        return self._rested(now_s, max(EVERY_S, self._rest_s))

    def full_after_short(self, now_s: float) -> bool:
        """The same, when a look from a position did not find as many jobs as were wanted."""
        return self._rested(now_s, self._rest_s)

    def since_ms(self, want: Want) -> int | None:
        """The run time from which to look in a flow, Unix milliseconds; `None`: the start."""
        reached_ms = self._reached_ms.get(_flow(want))
        return None if reached_ms is None else reached_ms - MARGIN_MS

    def looked_from_start(self, now_s: float, cost_s: float) -> None:
        self._full_at_s = now_s
        self._full_cost_s = cost_s

    def took(self, wants: Sequence[Want], reached: Sequence[tuple[int, int, int]]) -> None:
        """Notes how far a look came.

        Args:
            wants: What it asked for.
            reached: For the wants that got any: the index, how many, the last run time.
        """
        if len(self._reached_ms) > _FLOWS_MAX:
            self._reached_ms.clear()
        for index, _, last_ms in reached:
            self._reached_ms[_flow(wants[index])] = last_ms

    @property
    def _rest_s(self) -> float:
        return min(REST_MAX_S, REST * self._full_cost_s)

    def _rested(self, now_s: float, rest_s: float) -> bool:
        return self._full_cost_s <= CHEAP_S or now_s - self._full_at_s >= rest_s


def unfilled(wants: Sequence[Want], reached: Sequence[tuple[int, int, int]]) -> list[Want]:
    """What is left of the wants after a look."""
    found = {index: jobs for index, jobs, _ in reached}
    return [
        Want(want.queue, want.tenant, want.priority, want.jobs - found.get(index, 0))
        for index, want in enumerate(wants)
        if found.get(index, 0) < want.jobs
    ]


def _flow(want: Want) -> tuple[str, str, int]:
    return want.queue, want.tenant, want.priority
