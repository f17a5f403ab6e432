"""The port to a place where durable jobs live. Conformance: `tests/queue/test_store.py`."""

from collections.abc import Callable, Sequence
from typing import Protocol

from mailrace.pool import Schedule
from mailrace.queue.jobs import Batch, BatchReport, ClaimedJob, Finished, NewJob, ProcessRow, Reason


class Store(Protocol):
    """Durable jobs: each method is one transaction, committed to disk when it returns.

    Raises:
        UnavailableError: From every method: locked for too long, disk full, I/O error. Nothing of
            the call was done.
    """

    async def open_batch(self, name: str, kind: str, spec: bytes) -> Batch:
        """The batch of that name, made with `kind` and `spec` if there is none."""
        ...

    async def enqueue(self, batch_id: int, jobs: Sequence[NewJob]) -> int:
        """Adds the jobs whose key the batch has not got yet, and returns how many those were."""
        ...

    async def register(self, journal: str, lease_s: float) -> int:
        """Enters this process, which may then claim; returns its id, never used before."""
        ...

    def renewer(self, process_id: int, lease_s: float) -> Callable[[], bool]:
        """A blocking call, for a thread of its own, that prolongs the leases of the process.

        It returns false when the process is no longer known: somebody rescued its jobs.
        """
        ...

    async def processes(self) -> list[ProcessRow]:
        """All processes that may hold leases."""
        ...

    async def claim(self, process_id: int, batch_id: int, limit: int) -> list[ClaimedJob]:
        """Makes due retries available, then takes available jobs, oldest first.

        Raises:
            ConflictError: The process is no longer known.
        """
        ...

    async def finish(self, records: Sequence[Finished]) -> int:
        """Writes how attempts ended; returns how many were refused, as their lease had gone."""
        ...

    async def rescue(
        self, process: ProcessRow, records: Sequence[Finished], *, rest: Finished
    ) -> int | None:
        """Ends a process: writes `records`, then `rest` for all else that it holds.

        Only if its lease is still the one given in `process`: a process that renewed meanwhile
        is alive, and the answer is `None`. Otherwise the number of jobs that were `rest`.
        """
        ...

    async def resend(self, batch_id: int) -> int:
        """Makes uncertain jobs available again, their attempts begun anew; returns how many."""
        ...

    async def report(self, batch_id: int) -> BatchReport: ...

    async def reasons(self, batch_id: int) -> list[Reason]:
        """The twenty most frequent reasons, the most frequent first."""
        ...

    async def retire(self, process_id: int) -> bool:
        """Ends a process that holds nothing any more; one that does is left to be rescued.

        Returns:
            Whether the process is gone, now or since earlier: nobody needs its journal any more.
        """
        ...

    async def batches(self) -> list[Batch]:
        """All batches, the newest first."""
        ...

    async def take_slots(self, limit: str, schedule: Schedule, slots: int) -> float:
        """Takes slots in a row of a limit shared by everyone on this store.

        Returns:
            The first slot's Unix time in seconds.
        """
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...
