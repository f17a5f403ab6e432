"""Telling the store which jobs begin, many in one call."""

import asyncio
from collections.abc import Iterable

from mailrace.errors import ConflictError
from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.session import Session
from mailrace.queue.store import Claims


class Begun:
    """Notes of `once` jobs that they begin, before they do.

    Whoever rescues a process of another machine cannot read its journal: from these notes it
    knows what was begun and what was only held. Jobs that begin in the same turn of the loop, or
    while a note is under way, share the next one. A store whose processes can read each other's
    journals is told nothing.
    """

    def __init__(self, store: Claims) -> None:
        self._store = store
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._noting: asyncio.Task[None] | None = None

    async def note(self, session: Session, job: ClaimedJob) -> None:
        """Returns when everybody can see that the job is begun.

        Raises:
            ConflictError: The lease has run out.
            UnavailableError: The store is out of reach; the job must not begin.
        """
        if not self._store.marks_begun:
            return
        if not session.alive:
            raise _run_out(job.id)
        noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job.id, job.lease, noted))
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._note_all(session.process_id))
        await noted

    async def note_many(self, session: Session, jobs: Iterable[ClaimedJob]) -> None:
        """Notes those of them that are better done never than twice; raises what `note` does."""
        await asyncio.gather(*[self.note(session, job) for job in jobs if job.once])

    async def _note_all(self, process_id: int) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # others may begin in this very turn
            part, self._waiting = self._waiting, []
            try:
                jobs = [(job_id, lease) for job_id, lease, _ in part]
                gone = set(await self._store.begin(process_id, jobs))
            except Exception as error:  # noqa: BLE001 - it is that of everybody who waits
                for *_, noted in part:
                    _tell(noted, error)
            else:
                for job_id, _, noted in part:
                    _tell(noted, _run_out(job_id) if job_id in gone else None)


def _tell(noted: asyncio.Future[None], error: Exception | None) -> None:
    if noted.done():
        return
    if error is None:
        noted.set_result(None)
    else:
        noted.set_exception(error)


def _run_out(job_id: int) -> ConflictError:
    return ConflictError(f"the lease of job {job_id} has run out")
