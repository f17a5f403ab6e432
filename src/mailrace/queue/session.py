"""One process's standing with the store: its row, its journal, its lease and who renews it."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self
from uuid import UUID

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.journal import Journal
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store

LEASE_S = 30.0
_RENEW_S = LEASE_S / 6


class Session:
    """The right of this process to claim jobs, and the proof of what it did with them.

    Renewed from a thread of its own, so that a busy event loop loses no lease. When the renewals
    stop (a frozen process, a store out of reach), the session ends before anybody else may take
    over: `departing` then refuses.
    """

    def __init__(
        self,
        process_id: int,
        journal: Journal,
        renew: Callable[[], bool],
        *,
        until_s: float,
        clock: Clock,
    ) -> None:
        self.process_id = process_id
        self.journal = journal
        self._renew = renew
        self._until_s = until_s
        self._over = False
        self._clock = clock
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="mailrace-lease", daemon=True)

    @classmethod
    async def open(cls, store: Store, folder: Path, boot: str, name: UUID, clock: Clock) -> Self:
        """Registers this process; the journal is there before anything can be claimed."""
        journal = Journal.create(folder / f"{name}.journal", boot)
        until_s = clock.monotonic_s() + LEASE_S
        try:
            process_id = await store.register(journal.path.name, LEASE_S)
        except BaseException:
            journal.close()
            raise
        renew = store.renewer(process_id, LEASE_S)
        session = cls(process_id, journal, renew, until_s=until_s, clock=clock)
        session._thread.start()
        return session

    @property
    def alive(self) -> bool:
        """Whether the leases hold. Once over it stays over: whoever saw that let the jobs go."""
        if self._clock.monotonic_s() >= self._until_s:
            self._over = True
        return not self._over

    def expire(self) -> None:
        """Ends the lease on our side: the store no longer knows it."""
        self._over = True

    def departing(self, job: ClaimedJob) -> None:
        """Notes that the job goes out now.

        Raises:
            ConflictError: The lease has run out: somebody else may have the job.
            UnavailableError: The journal cannot be written.
        """
        self.journal.started(job.id, job.lease)
        # In this order: whoever takes over reads the journal after the lease has ended, so either
        # it finds the line, or the end is seen here.
        if not self.alive:
            self.journal.finished(Finished(job.id, job.lease, Step.RELEASE, JobState.AVAILABLE))
            raise ConflictError(f"the lease of job {job.id} has run out")

    async def close(self, *, keep_journal: bool) -> None:
        """Stops renewing and lets the journal go. Idempotent.

        Args:
            keep_journal: Leave it to whoever rescues what this session still holds. Without it,
                jobs that were never begun would have to be taken for uncertain.
        """
        self._over = True
        self._closing.set()
        self.journal.close(keep=keep_journal)
        await asyncio.to_thread(self._thread.join)  # it may be waiting for a locked store

    def _keep_alive(self) -> None:
        while not self._closing.wait(_RENEW_S):
            asked_s = self._clock.monotonic_s()
            try:
                known = self._renew()
            except MailraceError:
                continue  # the store is out of reach: the lease runs on and may run out
            if not known:
                self.expire()
            if not self.alive:
                return
            self._until_s = asked_s + LEASE_S
