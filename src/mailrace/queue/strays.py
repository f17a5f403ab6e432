"""Claims that the store counts as ours and nobody here knows of."""

from mailrace.clock import Clock
from mailrace.queue.claiming import Claiming
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import Finished
from mailrace.queue.session import Session
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Claims
from mailrace.queue.workers import Workers


class Strays:
    """Hands back jobs of which this process holds the lease and has never heard.

    The answer to a claim can be lost on its way, after the store has made the claim: the lease of
    such jobs would be renewed for as long as the process lives, and nobody would do them. A claim
    whose answer is still coming looks the same, so only what is seen again is handed back, once no
    claim is under way that had begun when it was first seen.
    """

    def __init__(
        self,
        store: Claims,
        workers: Workers,
        finisher: Finisher,
        claiming: Claiming,
        clock: Clock,
    ) -> None:
        self._store = store
        self._workers = workers
        self._finisher = finisher
        self._claiming = claiming
        self._clock = clock
        self._seen: dict[tuple[int, int], int] = {}

    async def look(self, session: Session) -> int:
        """Compares once; returns how many are handed back.

        Raises:
            UnavailableError: The store is out of reach.
        """
        held = set(await self._store.held(session.process_id))
        unknown = held - self._workers.known() - self._finisher.known()
        answered = self._claiming.answered
        again = {claim for claim in unknown if self._seen.get(claim, answered + 1) <= answered}
        self._seen = {
            claim: self._seen.get(claim, self._claiming.begun) for claim in unknown - again
        }
        now_ms = int(self._clock.unix_s() * 1000)
        for job_id, lease in again:
            self._finisher.add(
                session,
                Finished(job_id, lease, Step.RELEASE, JobState.AVAILABLE, at_ms=now_ms),
            )
        return len(again)
