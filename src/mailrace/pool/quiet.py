"""Waiting until a pool has nothing left to do."""

from typing import TYPE_CHECKING, Any

from mailrace.pool.job import CURRENT, Job

if TYPE_CHECKING:
    import asyncio

    from mailrace.pool.engine import Engine

AnyJob = Job[Any]


class Quiet:
    """The moment at which no accepted job is unfinished.

    Attributes:
        excused: Jobs that wait for it themselves: nobody waits for them.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._waiters: list[asyncio.Future[None]] = []
        self.excused: set[AnyJob] = set()

    @property
    def awaited(self) -> bool:
        return bool(self._waiters)

    @property
    def is_now(self) -> bool:
        """Whether it is quiet."""
        engine = self._engine
        return not (engine.backlog or engine.settlement.delayed or engine.intake.spilled) and all(
            worker.job is None or worker.job in self.excused for worker in engine.crew
        )

    def tell(self) -> None:
        """Wakes whoever waits for it, if it is."""
        if self.is_now:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def come(self) -> None:
        """Waits for it."""
        engine = self._engine
        waiter = engine.loop.create_future()
        self._waiters.append(waiter)
        engine.observed = True
        try:
            if not self.is_now:
                await engine.blocked(waiter)
        finally:
            self._waiters.remove(waiter)
            engine.look()

    async def drained(self) -> None:
        """Waits for it; a job that does so is not waited for itself."""
        job = self.excuse()
        try:
            await self.come()
        finally:
            if job is not None:
                self.excused.discard(job)

    def excuse(self) -> AnyJob | None:
        """Has nobody wait for the job that calls, if it is one."""
        job = CURRENT.get()
        if job is None or not job.belongs_to(self._engine) or job.done():
            return None
        self.excused.add(job)
        self.tell()
        return job
