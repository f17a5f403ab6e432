"""A run with everything around it: a real SQLite file, virtual time, a handler that counts."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from mailrace.errors import UnavailableError
from mailrace.events import Events
from mailrace.pool import Limiter, NoLimit, RetrySchedule
from mailrace.queue import (
    Attempted,
    ClaimedJob,
    End,
    Gate,
    Handler,
    Result,
    Runner,
    RunnerSettings,
    Step,
)
from mailrace.queue.jobs import Finished
from mailrace.queue.stores.sqlite import SqliteStore
from tests.queue.houses import SqliteHouse
from tests.support.clock import VirtualClock

OK = Result(Step.COMPLETE, "250", "taken")


class FlakyStore(SqliteStore):
    """Fails as often as it is told to."""

    finish_failures: int | None = 0
    claim_failures: int | None = 0
    fault: Exception | None = None

    async def finish(self, records: Sequence[Finished]) -> int:
        if self.fault is not None:
            raise self.fault
        if self.finish_failures is None or self.finish_failures > 0:
            self.finish_failures = self.finish_failures and self.finish_failures - 1
            raise UnavailableError("the store is not usable now")
        return await super().finish(records)

    async def claim(self, process_id: int, batch_id: int, limit: int) -> list[ClaimedJob]:
        if self.claim_failures is None or self.claim_failures > 0:
            self.claim_failures = self.claim_failures and self.claim_failures - 1
            raise UnavailableError("the store is not usable now")
        return await super().claim(process_id, batch_id, limit)


@dataclass(slots=True, kw_only=True)
class World:
    clock: VirtualClock
    house: SqliteHouse
    store: FlakyStore
    journals: Path

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
            batch_id=batch_id,
            handler=handler,
            limiter=limiter or NoLimit(),
            settings=RunnerSettings(
                journals=self.journals,
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

    async def assert_nothing_is_left(self) -> None:
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
