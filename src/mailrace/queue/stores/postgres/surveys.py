"""Which flows a survey shows when there are many, and how long it holds: decisions only. Pure."""

import math
from collections.abc import Sequence
from typing import Final

from mailrace.queue.flows import Flow
from mailrace.queue.stores.postgres.positions import CHEAP_S, REST

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
        self._cost_s = 0.0

    def again(self, asked: tuple[object, ...], now_s: float) -> list[Flow] | None:
        """Its flows, older by the time since, while it still has to rest."""
        age_s, rest_s = now_s - self._at_s, min(REST_MAX_S, REST * self._cost_s)
        if asked != self._asked or self._cost_s <= CHEAP_S or age_s >= rest_s:
            return None
        return [
            Flow(flow.queue, flow.tenant, flow.priority, flow.waited_ms + int(age_s * 1000))
            for flow in self._flows
        ]

    def made(
        self, asked: tuple[object, ...], flows: list[Flow], *, now_s: float, cost_s: float
    ) -> None:
        self._asked, self._flows = asked, flows
        self._at_s, self._cost_s = now_s, cost_s
