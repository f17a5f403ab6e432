"""A run with everything around it: a real SQLite file, virtual time, a handler that counts."""

import asyncio
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

import msgspec

from mailrace.errors import UnavailableError
from mailrace.events import Events
from mailrace.pool import Limiter, NoLimit, RetrySchedule
from mailrace.queue import (
    Attempted,
    Batch,
    ClaimedJob,
    End,
    Gate,
    Handler,
    JobState,
    Place,
    Result,
    Runner,
    RunnerSettings,
    Step,
    boot_id,
)
from mailrace.queue.drafting import Drafting
from mailrace.queue.flows import Want
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Finished
from mailrace.queue.kinds import Handlers
from mailrace.queue.processes import Vitals
from mailrace.queue.queue import Queue
from mailrace.queue.sealing import Sealer
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.worker import Worker, WorkerSettings
from tests.queue.houses import SqliteHouse, queue_counts
from tests.support.clock import VirtualClock

OK = Result(Step.COMPLETE, "250", "taken")


_P = ParamSpec("_P")
_T = TypeVar("_T")


class FlakyStore(SqliteStore):
    """Fails as often as it is told to.

    Attributes:
        down: Every call fails.
    """

    down = False
    finish_failures: int | None = 0
    claim_failures: int | None = 0
    fault: Exception | None = None

    async def _write(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        self._check_up()
        return await super()._write(work, *args, **kwargs)

    async def _look(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        self._check_up()
        return await super()._look(work)

    def _check_up(self) -> None:
        if self.down:
            raise UnavailableError("the store is out of reach")

    def renewer(self, process_id: int, lease_s: float) -> Callable[[Vitals], bool]:
        renew = super().renewer(process_id, lease_s)

        def checked(vitals: Vitals) -> bool:
            self._check_up()
            return renew(vitals)

        return checked

    async def finish(self, records: Sequence[Finished]) -> int:
        if self.fault is not None:
            raise self.fault
        if self.finish_failures is None or self.finish_failures > 0:
            self.finish_failures = self.finish_failures and self.finish_failures - 1
            raise UnavailableError("the store is not usable now")
        return await super().finish(records)

    async def claim(
        self, process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        if self.claim_failures is None or self.claim_failures > 0:
            self.claim_failures = self.claim_failures and self.claim_failures - 1
            raise UnavailableError("the store is not usable now")
        return await super().claim(process_id, wants, once=once)


def batch_of(batch_id: int) -> Batch:
    """The batch as `fill` opened it."""
    return Batch(id=batch_id, name="batch", kind="kind", spec=msgspec.Raw(b"{}"), created=False)


@dataclass(slots=True, kw_only=True)
class World:
    clock: VirtualClock
    house: SqliteHouse
    store: FlakyStore
    journals: Path

    @property
    def place(self) -> Place:
        return Place(journals=self.journals, boot=boot_id())

    def runner(
        self,
        handler: Handler,
        batch_id: int,
        *,
        workers: int = 5,
        retry: RetrySchedule | None = None,
        wait: bool = True,
        limiter: Limiter | None = None,
        store: SqliteStore | None = None,
        on_attempt: Callable[[Attempted], None] | None = None,
    ) -> Runner:
        events = Events()
        if on_attempt is not None:
            events.follow(Attempted, on_attempt)
        return Runner(
            store=store or self.store,
            batch=batch_of(batch_id),
            handler=handler,
            limiter=limiter or NoLimit(),
            settings=RunnerSettings(
                place=self.place,
                workers=workers,
                retry=retry or RetrySchedule((1.0, 2.0)),
                wait=wait,
            ),
            clock=self.clock,
            names=uuid4,
            events=events,
        )

    async def run(self, handler: Handler, batch_id: int, **settings: Any) -> End:
        async with asyncio.timeout(20):
            return await self.runner(handler, batch_id, **settings).run()

    def worker(
        self,
        handlers: Handlers,
        *,
        store: SqliteStore | None = None,
        events: Events | None = None,
        sealer: Sealer | None = None,
        **settings: Any,
    ) -> Worker:
        return Worker(
            store or self.store,
            handlers,
            place=self.place,
            clock=self.clock,
            names=uuid4,
            rng=Random(7),
            events=events or Events(),
            settings=WorkerSettings(**settings),
            sealer=sealer,
        )

    def queue(self, handlers: Handlers | None = None, sealer: Sealer | None = None) -> Queue:
        drafting = Drafting(nonces=os.urandom, handlers=handlers, sealer=sealer)
        return Queue(self.store, drafting)

    @asynccontextmanager
    async def working(self, handlers: Handlers, **settings: Any) -> AsyncIterator[Worker]:
        """A worker that works in the block and is drained after it."""
        async with self.running(self.worker(handlers, **settings)) as worker:
            yield worker

    @asynccontextmanager
    async def running(self, *workers: Worker) -> AsyncIterator[Worker]:
        """These work in the block and are drained after it."""
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            yield workers[0]
        finally:
            for worker in workers:
                worker.drain()
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)

    async def until(self, true: Callable[[], bool], within_s: float = 600.0) -> None:
        """Lets time pass until something is so."""
        until_s = self.clock.monotonic_s() + within_s
        while not true():
            assert self.clock.monotonic_s() < until_s, "it never came to that"
            await self.clock.sleep_s(0.02)

    async def until_counts(self, expected: dict[JobState, int], queue: str = "default") -> None:
        """Lets time pass until the jobs of a queue stand like this."""
        for _ in range(3000):
            if await queue_counts(self.store, queue) == expected:
                return
            await self.clock.sleep_s(0.05)
        assert await queue_counts(self.store, queue) == expected

    async def attempts(self, batch_id: int) -> set[int]:
        """How many attempts the jobs of a batch have had."""
        rows = await self.store.find(JobFilter(batch_id=batch_id), limit=1000)
        return {row.attempt for row in rows}

    async def assert_nothing_is_left(self) -> None:
        """No task, no thread, no row of a process, no journal."""
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not [t for t in threading.enumerate() if t.name == "mailrace-lease"]
        assert await self.store.processes() == []
        assert list(self.journals.glob("*")) == []


@dataclass(slots=True)
class Recorder:
    """A handler that commits, keeps count, and answers as it is told."""

    answer: Callable[[ClaimedJob], Awaitable[Result]] | None = None
    committed: list[ClaimedJob] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def __call__(self, job: ClaimedJob, gate: Gate) -> Result:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await gate.permit()
            await asyncio.sleep(0)
            gate.commit()
            self.committed.append(job)
            await asyncio.sleep(0)
            return OK if self.answer is None else await self.answer(job)
        finally:
            self.at_once -= 1

    @property
    def times(self) -> Counter[int]:
        return Counter(job.id for job in self.committed)
