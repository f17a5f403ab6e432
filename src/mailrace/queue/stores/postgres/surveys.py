"""Which flows a survey shows when there are many, and how long it holds: decisions only. Pure."""

import math
from collections.abc import Sequence
from typing import Final

from mailrace.queue.flows import Flow

CHEAP_S: Final = 0.005
REST: Final = 10
"""A survey is made again after `REST` times of what it took beyond `CHEAP_S`."""
# What takes long is held up by something else, a network or a lock, and new jobs wait to be seen.
REST_MAX_S: Final = 2.0


def cut(flows: Sequence[Flow], most: int) -> tuple[list[Flow], str | None]:
    """The flows of one queue to show, and behind which tenant the next survey goes on.

    Args:
        flows: In the order of the index, up to one more than `most`.
    """
    if len(flows) <= most:
        return list(flows), None
    shown = list(flows[:most])
    last = shown[-1].tenant
    if flows[most].tenant != last:
        return shown, last
    # Not all of the last tenant's flows fit, and the urgent ones come last: all of it next time.
    before = [flow for flow in shown if flow.tenant != last]
    return (before, before[-1].tenant) if before else (shown, last)


class LastSurvey:
    """The last survey, shown again for a while if it was costly."""

    def __init__(self) -> None:
        self._asked: tuple[object, ...] = ()
        self._flows: list[Flow] = []
        self._at_s = -math.inf
        self._took_s = 0.0
        self._cost_s = 0.0

    def again(self, asked: tuple[object, ...], now_s: float) -> list[Flow] | None:
        """Its flows, older by the time since, while it still has to rest."""
        age_s, rest_s = now_s - self._at_s, min(REST_MAX_S, REST * (self._cost_s - CHEAP_S))
        if asked != self._asked or age_s >= rest_s or not self._flows:
            return None
        return [
            Flow(flow.queue, flow.tenant, flow.priority, flow.waited_ms + int(age_s * 1000))
            for flow in self._flows
        ]

    def made(
        self, asked: tuple[object, ...], flows: list[Flow], *, now_s: float, cost_s: float
    ) -> None:
        self._asked, self._flows, self._at_s = asked, flows, now_s
        # Of two in a row: one alone may have been held up by others' work on the same cores.
        self._took_s, self._cost_s = cost_s, min(cost_s, self._took_s)
