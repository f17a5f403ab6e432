"""A pool on a virtual clock, and functions whose end a test decides."""

import asyncio
import contextlib
import threading
from typing import Any

from mailrace.pool import CloseReport, Job, JobState, Pool, Reason, RetryPolicy, RetrySchedule
from tests.support.clock import VirtualClock

WAIT_S = 30.0
TASK = "pool worker "


class BoomError(Exception):
    """What functions raise."""


class Bench:
    """A pool on a virtual clock, and functions whose end a test decides."""

    def __init__(self, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.pool = Pool(clock=self.clock, **{"workers": 1, **settings})
        self.gate = asyncio.Event()
        self.freed = threading.Event()
        self.ran: list[object] = []

    async def note(self, value: object = None) -> object:
        self.ran.append(value)
        return value

    async def held(self, value: object = None) -> object:
        self.ran.append(value)
        await self.gate.wait()
        return value

    async def boom(self) -> None:
        raise BoomError

    async def stubborn(self) -> str:
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()
        return "late"

    def stuck(self) -> str:
        self.freed.wait(WAIT_S)
        return "late"

    def retried_after(self, *delays_s: float) -> Any:
        return self.pool.options(retry=RetryPolicy(delays=RetrySchedule(delays_s)))

    def closing(
        self, timeout: float | None = 30.0, *, finish_queue: bool = True
    ) -> "asyncio.Task[CloseReport]":
        return asyncio.ensure_future(self.pool.close(timeout, finish_queue=finish_queue))


def adds_up(pool: Pool) -> None:
    ledger = pool.ledger()
    assert ledger.accepted == (
        ledger.queued
        + ledger.delayed
        + ledger.running
        + ledger.completed
        + ledger.failed
        + ledger.cancelled
        + ledger.expired
        + ledger.dropped
        + ledger.handed_back
    )


def worker_tasks() -> list["asyncio.Task[Any]"]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(TASK)]


def handed_back(job: Job[Any]) -> bool:
    return job.state is JobState.HANDED_BACK and job.reason is Reason.CLOSED
