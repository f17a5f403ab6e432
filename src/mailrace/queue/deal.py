"""Whose turn it is: how many jobs of which flow the next claim asks for."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

from mailrace.errors import MisuseError
from mailrace.queue.flows import Flow, Want
from mailrace.queue.queuerules import ALL_QUEUES

Room = Callable[[str, str], float]
"""How many jobs of a queue and tenant may be claimed now: infinite where nothing bounds it."""

Ageing = Callable[[str], float]
"""After how many seconds of waiting a job of a queue counts as one priority higher."""

# A claim is dealt out in about so many portions.
_STRIDES: Final = 32


class Dealer:
    """Deals a number of jobs out to queues by weight, to tenants in turns, then by priority.

    Within one queue every tenant that has due jobs gets the same share of a claim, and what does
    not come out even goes round: a tenant with a million jobs, or one whose limit lets nothing
    go, costs the others nothing. Of one tenant's jobs those go first whose priority is highest,
    where a job that has waited for `ageing_s` counts as one higher: none waits for ever behind
    ones that keep coming.

    Args:
        weights: Shares of the queues; `*` stands for every queue that is not named.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        for queue, weight in weights.items():
            if not 0 < weight < inf:
                raise MisuseError(
                    f"the weight of queue {queue!r} is {weight}", hint="give a number above zero"
                )
        self._weights = dict(weights)
        self._passes: dict[str, float] = {}
        self._served: dict[str, str] = {}

    def weight(self, queue: str) -> float:
        return self._weights.get(queue, self._weights.get(ALL_QUEUES, 1.0))

    def deal(
        self,
        flows: Sequence[Flow],
        jobs: int,
        *,
        since_ms: float = 0.0,
        ageing_s: Ageing,
        room: Room,
    ) -> list[Want]:
        """Chooses at most one flow for each tenant, and how many jobs of it.

        Args:
            flows: What the last survey saw.
            jobs: How many are wanted in all.
            since_ms: How old the survey is.
        """
        if len(flows) == 1:  # the usual case, and the only one on the hot path
            return _whole(flows[0], jobs, since_ms, room)
        first = _first_by_tenant(flows, since_ms, ageing_s)
        rooms = {
            queue: {tenant: room(queue, tenant) for tenant in tenants}
            for queue, tenants in first.items()
        }
        shares = self._by_queue({queue: sum(by.values()) for queue, by in rooms.items()}, jobs)
        return [
            Want(queue, tenant, first[queue][tenant].priority, count)
            for queue, share in shares.items()
            for tenant, count in self._by_tenant(queue, rooms[queue], share).items()
        ]

    def _by_queue(self, rooms: Mapping[str, float], jobs: int) -> dict[str, int]:
        """Shares by weight, kept over many claims: who is the furthest behind comes next.

        (Stride scheduling, Waldspurger and Weihl 1995.)
        """
        shares: dict[str, int] = {}
        left = jobs
        waiting = {queue for queue, room in rooms.items() if room > 0}
        # Whoever had nothing to do comes in beside the others, and not with a claim on the past.
        level = min(
            (self._passes[queue] for queue in waiting if queue in self._passes), default=0.0
        )
        passes = self._passes = {queue: self._passes.get(queue, level) for queue in waiting}
        stride = max(1, jobs // _STRIDES)
        while left and waiting:
            queue = min(waiting, key=lambda name: (passes[name], name))
            count = int(min(stride, left, rooms[queue] - shares.get(queue, 0)))
            shares[queue] = shares.get(queue, 0) + count
            passes[queue] += count / self.weight(queue)
            left -= count
            if shares[queue] >= rooms[queue]:
                waiting.remove(queue)
        return shares

    def _by_tenant(self, queue: str, rooms: Mapping[str, float], jobs: int) -> dict[str, int]:
        """Equal shares, begun behind the tenant that was served last."""
        counts: dict[str, int] = {}
        left = jobs
        turn = self._in_turn(queue, [tenant for tenant, room in rooms.items() if room > 0])
        while left and turn:
            each = max(1, left // len(turn))
            for tenant in turn[:left]:
                count = int(min(each, rooms[tenant] - counts.get(tenant, 0)))
                counts[tenant] = counts.get(tenant, 0) + count
                left -= count
                self._served[queue] = tenant
            turn = [tenant for tenant in turn if counts.get(tenant, 0) < rooms[tenant]]
        return counts

    def _in_turn(self, queue: str, tenants: list[str]) -> list[str]:
        tenants.sort()
        last = self._served.get(queue)
        if last is None:
            return tenants
        behind = [tenant for tenant in tenants if tenant > last]
        return behind + tenants[: len(tenants) - len(behind)]


def _whole(flow: Flow, jobs: int, since_ms: float, room: Room) -> list[Want]:
    count = int(min(jobs, room(flow.queue, flow.tenant)))
    if count < 1 or flow.waited_ms + since_ms < 0:
        return []
    return [Want(flow.queue, flow.tenant, flow.priority, count)]


def _first_by_tenant(
    flows: Sequence[Flow], since_ms: float, ageing_s: Ageing
) -> dict[str, dict[str, Flow]]:
    """The flow of each tenant that goes first, by queue."""
    found: dict[str, dict[str, tuple[float, Flow]]] = {}
    for flow in flows:
        waited_ms = flow.waited_ms + since_ms
        if waited_ms < 0:
            continue
        rank = flow.priority + waited_ms / 1000 / ageing_s(flow.queue)
        tenants = found.setdefault(flow.queue, {})
        best = tenants.get(flow.tenant)
        if best is None or rank > best[0]:
            tenants[flow.tenant] = rank, flow
    return {
        queue: {tenant: flow for tenant, (_, flow) in tenants.items()}
        for queue, tenants in found.items()
    }
