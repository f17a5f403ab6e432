"""One process's standing with the store: its row, its journal, its lease and who renews it."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import msgspec

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, UnavailableError
from mailrace.queue.heartbeat import heartbeat_of
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.journal import Journal
from mailrace.queue.processes import NewProcess, Vitals
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store

# Others look every five seconds: what a dead process held runs again within half a minute.
LEASE_S = 25.0
# A store that does not answer is not waited for any longer when the process is to end.
_LEAVE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the processes of one node keep their journals.

    Attributes:
        journals: The folder.
        boot: What names the present run of the machine (`boot_id`).
        node: What names the folder, wherever it is seen from; empty where nobody elsewhere can
            reach the store.
    """

    journals: Path
    boot: str
    node: str = ""


def node_of(folder: Path) -> str:
    """What names a folder of journals from anywhere: a random id that is kept in it.

    Raises:
        UnavailableError: The folder cannot be used.
    """
    path = folder / "node"
    draft = folder / f"node.{uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            draft.write_text(uuid4().hex, encoding="ascii")
            try:
                os.link(draft, path)  # whoever comes first names it, and never half a name
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise UnavailableError(
            f"the folder for journals {folder} cannot be used: {error.strerror}",
            hint="name another one with MAILRACE_JOURNALS",
        ) from error


class Session:
    """The right of this process to claim jobs, and the proof of what it did with them.

    Renewed from a thread of its own, so that a busy event loop loses no lease. When the renewals
    stop (a frozen process, a store out of reach), the session ends before anybody else may take
    over: `departing` then refuses.

    Attributes:
        trouble: What the last renewal failed with, if it did.
    """

    def __init__(
        self,
        process_id: int,
        journal: Journal,
        renew: Callable[[Vitals], bool],
        *,
        vitals: Callable[[], Vitals],
        lease_s: float,
        heartbeat_s: float,
        until_s: float,
        clock: Clock,
    ) -> None:
        self.process_id = process_id
        self.journal = journal
        self._renew = renew
        self._vitals = vitals
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._until_s = until_s
        self._over = False
        self.trouble: Exception | None = None
        self._clock = clock
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="mailrace-lease", daemon=True)

    @classmethod
    async def open(
        cls,
        store: Store,
        place: Place,
        *,
        name: UUID,
        clock: Clock,
        process: NewProcess,
        vitals: Callable[[], Vitals] = Vitals,
        lease_s: float = LEASE_S,
        heartbeat_s: float | None = None,
    ) -> Self:
        """Registers this process; the journal is there before anything can be claimed.

        Args:
            process: What it is; journal and node come from the place.
            vitals: Asked from the thread that renews.
            lease_s: How long its claims hold without a renewal.
            heartbeat_s: How often they are renewed, if not as `heartbeat_of` says.
        """
        journal = Journal.create(place.journals / f"{name}.journal", place.boot)
        until_s = clock.monotonic_s() + lease_s
        try:
            known = msgspec.structs.replace(process, journal=journal.path.name, node=place.node)
            process_id = await _registered(store, known, lease_s)
        except BaseException:
            journal.close()
            raise
        renew = store.renewer(process_id, lease_s)
        session = cls(
            process_id,
            journal,
            renew,
            vitals=vitals,
            lease_s=lease_s,
            heartbeat_s=heartbeat_of(lease_s, heartbeat_s),
            until_s=until_s,
            clock=clock,
        )
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

    def departing(self, job: ClaimedJob, *, once: bool) -> None:
        """Notes that the job goes out now.

        Args:
            once: It must not go out again if nothing more is heard of it.

        Raises:
            ConflictError: The lease has run out: somebody else may have the job.
            UnavailableError: The journal cannot be written.
        """
        self.journal.started(job.id, job.lease, once=once)
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
        while not self._closing.wait(self._heartbeat_s):
            asked_s = self._clock.monotonic_s()
            try:
                known = self._renew(self._vitals())
            except Exception as error:  # noqa: BLE001 - kept: the lease runs on and may run out
                self.trouble = error
                continue
            self.trouble = None
            if not known:
                self.expire()
            if not self.alive:
                return
            self._until_s = asked_s + self._lease_s


async def _registered(store: Store, process: NewProcess, lease_s: float) -> int:
    """Its id in the store; whoever is cancelled on the way leaves no process behind."""
    registering = asyncio.create_task(store.register(process, lease_s))
    try:
        return await asyncio.shield(registering)
    except asyncio.CancelledError:
        with suppress(MailraceError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await store.retire(await registering)
        raise
