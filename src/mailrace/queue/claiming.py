"""Taking jobs from the store: what is there, whose turn it is, and the claim."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from mailrace.clock import Clock
from mailrace.errors import MailraceError
from mailrace.queue.deal import Ageing, Dealer, Room
from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.store import Claims

# A flow that is new while others keep the workers busy is seen after so long at the latest.
_SURVEY_S: Final = 0.1
_AGEING_S: Final = 60.0


def no_bound(_queue: str, _tenant: str) -> float:
    return inf


def default_ageing(_queue: str) -> float:
    return _AGEING_S


class Claiming:
    """Claims due jobs of some queues for one process.

    Args:
        queues: Their names; `*` means all.
        once: Kinds whose jobs become uncertain when an attempt has no result.
        room: How many jobs of a queue and tenant may be claimed now.

    Attributes:
        begun: How many claims the store was asked for.
        answered: How many of these are over, in whatever way.
        due_in_s: When the next job is due, as the last survey says; `None`: none is waiting.
    """

    def __init__(
        self,
        store: Claims,
        dealer: Dealer,
        *,
        queues: Sequence[str],
        once: Sequence[str],
        clock: Clock,
        room: Room = no_bound,
        ageing_s: Ageing = default_ageing,
    ) -> None:
        self._store = store
        self._dealer = dealer
        self._queues = list(queues)
        self._once = list(once)
        self._clock = clock
        self._room = room
        self._ageing_s = ageing_s
        self._flows: list[Flow] = []
        self._surveyed_s = -inf
        self.begun = self.answered = 0
        self.due_in_s: float | None = None

    def look_again(self) -> None:
        """Something may have changed: the next claim begins with a survey."""
        self._surveyed_s = -inf

    async def claim(
        self, process_id: int, jobs: int, add: Callable[[list[ClaimedJob]], None]
    ) -> int:
        """Claims up to so many jobs; returns how many.

        Args:
            add: Called with them, also where the caller is cancelled meanwhile: what the store
                gave us is to be handed back.

        Raises:
            ConflictError: The process is no longer known.
            UnavailableError: The store is out of reach.
        """
        fresh = await self._survey_if_old()
        while True:
            wants = self._wants(jobs)
            taken = await self._take(process_id, wants, add) if wants else 0
            if taken or fresh:
                return taken
            await self._survey()
            fresh = True

    def _wants(self, jobs: int) -> list[Want]:
        since_ms = (self._clock.monotonic_s() - self._surveyed_s) * 1000
        if not self._flows:
            return []
        return self._dealer.deal(
            self._flows, jobs, since_ms=since_ms, ageing_s=self._ageing_s, room=self._room
        )

    async def _take(
        self, process_id: int, wants: list[Want], add: Callable[[list[ClaimedJob]], None]
    ) -> int:
        self.begun += 1
        claiming = asyncio.create_task(self._store.claim(process_id, wants, once=self._once))
        try:
            jobs = await asyncio.shield(claiming)
            self._forget_short(wants, jobs)
            add(jobs)
        except asyncio.CancelledError:
            with contextlib.suppress(MailraceError):
                add(await claiming)
            raise
        finally:
            self.answered = self.begun  # one at a time
        return len(jobs)

    def _forget_short(self, wants: list[Want], jobs: list[ClaimedJob]) -> None:
        """Takes out the flows that gave less than they were asked for: nothing is left there."""
        wanted = sum(want.jobs for want in wants)
        if len(jobs) == wanted:
            return
        got = Counter((job.queue, job.tenant, job.priority) for job in jobs)
        short = {
            key
            for want in wants
            if got[key := (want.queue, want.tenant, want.priority)] < want.jobs
        }
        self._flows = [
            flow for flow in self._flows if (flow.queue, flow.tenant, flow.priority) not in short
        ]

    async def _survey_if_old(self) -> bool:
        if self._clock.monotonic_s() - self._surveyed_s < _SURVEY_S:
            return False
        await self._survey()
        return True

    async def _survey(self) -> None:
        asked_s = self._clock.monotonic_s()
        self._flows = await self._store.survey(self._queues)
        self._surveyed_s = asked_s
        waits = [-flow.waited_ms for flow in self._flows if flow.waited_ms < 0]
        self.due_in_s = min(waits) / 1000 if waits else None
