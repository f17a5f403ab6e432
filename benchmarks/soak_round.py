"""A few seconds of a pool's life in the soak: random jobs, and somebody who meddles meanwhile."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from soak_handlers import FaultError, Record, Witness, in_process, in_thread, on_loop

from mailrace.pool import (
    Backoff,
    BreakerSettings,
    CloseReport,
    Job,
    JobError,
    JobState,
    Kind,
    Overflow,
    Pool,
    PoolClosedError,
    PoolFullError,
    RetryBudget,
    RetryLaterError,
    RetryPolicy,
    RetrySchedule,
)

_DEEDS = (
    *("return", "turn", "wait", "raise") * 5,
    *("later", "hang", "ignore", "cancel itself", "nest"),
)
_PROCESS_DEEDS = ("return", "raise", "hang", "die", "exit")
_KEYS = ("ants", "bees", "cows", None)
_RETRIES = (
    None,
    RetryPolicy(delays=Backoff(attempts=3, first_s=0.01, cap_s=0.05)),
    RetryPolicy(delays=RetrySchedule((0.0, 0.1))),
)
_BREAKER = BreakerSettings(
    failures=30, share=0.6, calls_min=40, window_s=2, break_s=0.1, break_max_s=0.4, probes=2
)
_CHANGES: Sequence[tuple[str, Sequence[object]]] = (
    ("rate", (None, None, "2000/s", "1000/s, 30000/min")),
    ("key_rate", (None, None, "500/s")),
    ("worker_rate", (None, None, "400/s")),
    ("breaker", (None, _BREAKER)),
    ("key_breaker", (None, _BREAKER)),
    ("retry_budget", (None, RetryBudget(share=0.3, least_per_s=20))),
    ("queue_size", (5, 50, 200)),
    ("overflow", tuple(Overflow)),
    ("overflow_size", (0, 50)),
    ("metrics", (True, False)),
    ("fair_keys", (True, False)),
    ("ageing", (0.05, 30.0)),
    ("cancel_grace", (0.05, 0.3)),
)
_ROUND_S = 5.0
REST_S = 30.0
_SUBMITTERS = 4


class Round:
    """A few seconds of one pool's life, between two comparisons."""

    def __init__(self, pool: Pool, witness: Witness, numbers: Iterator[int]) -> None:
        self._pool = pool
        self._witness = witness
        self._numbers = numbers
        self._random = Random(next(numbers))
        self._until = time.monotonic() + _ROUND_S
        self._readers: set[asyncio.Task[None]] = set()
        self.report: CloseReport | None = None
        witness.nested = self._nested

    async def run(self, *, closes: bool) -> None:
        """Everything at once, until the time is over or the pool is closed."""
        thread = threading.Thread(target=self._from_a_thread)
        thread.start()
        async with asyncio.TaskGroup() as group:
            for _ in range(_SUBMITTERS):
                group.create_task(self._submit())
            group.create_task(self._meddle())
            if closes:
                group.create_task(self._close())
        await asyncio.to_thread(thread.join)
        if self.report is None:
            await self._rest()
        await asyncio.gather(*self._readers)

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._until

    async def _submit(self) -> None:
        chance = self._random
        while self._goes_on:
            ways = (self._one, self._one, self._nowait, self._in_a_hurry, self._many)
            try:
                for _ in range(chance.choice((1, 10, 50))):
                    await chance.choice(ways)()
            except PoolClosedError:
                return
            await asyncio.sleep(chance.random() * 0.06)

    async def _one(self) -> None:
        call, record = self._job()
        await self._handed(record, call.submit)

    async def _nowait(self) -> None:
        call, record = self._job()

        async def submit() -> Job[int]:
            return call.submit_nowait()

        await self._handed(record, submit)

    async def _in_a_hurry(self) -> None:
        """A submit that is cancelled has not enqueued, unless it ran the job itself."""
        if self._pool.settings.overflow == Overflow.CALLER_RUNS:
            return
        call, record = self._job()

        async def submit() -> Job[int]:
            async with asyncio.timeout(self._random.random() * 0.01):
                return await call.submit()

        with suppress(TimeoutError):
            await self._handed(record, submit)

    async def _many(self) -> None:
        call, first = self._job(Kind.LOOP)
        records = [first, *(self._record(Kind.LOOP) for _ in range(9))]
        work = partial(on_loop, self._witness, deed=call.deed, seconds=call.seconds)
        left = iter(records)
        answers = call.view.submit_many(work, [record.number for record in records])
        try:
            async for answer in answers:
                record = next(left)
                if isinstance(answer, PoolFullError):
                    del self._witness.records[record.number]
                else:
                    self._accepted(record, answer)
        finally:
            for record in left:  # the pool has closed
                del self._witness.records[record.number]

    async def _nested(self) -> int:
        call, record = self._job(Kind.LOOP, nest=False)
        job = await self._handed(record, call.submit)
        return 0 if job is None else await job

    def _from_a_thread(self) -> None:
        while self._goes_on:
            call, record = self._job(Kind.LOOP, nest=False)
            try:
                future = call.submit_threadsafe()
            except (PoolFullError, PoolClosedError):
                del self._witness.records[record.number]
            else:
                future.job.engine.loop.call_soon_threadsafe(self._accepted, record, future.job)
            time.sleep(0.02)

    async def _handed(
        self, record: Record, submit: Callable[[], Awaitable[Job[int]]]
    ) -> Job[int] | None:
        try:
            job = await submit()
        except PoolFullError:
            del self._witness.records[record.number]
            return None
        except BaseException:
            if record.job is None:
                del self._witness.records[record.number]
            else:  # a submit that ran the job itself was cancelled in the middle of it
                self._accepted(record, record.job)
            raise
        self._accepted(record, job)
        if self._random.random() < 0.2:
            reader = asyncio.create_task(self._read(record.number, job))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        return job

    def _accepted(self, record: Record, job: Job[int]) -> None:
        record.job = job
        self._witness.accepted += 1
        job.add_done_callback(lambda job: self._witness.ended(job, record))

    async def _read(self, number: int, job: Job[int]) -> None:
        """Waits for the result, or for a moment only, or cancels the job after it."""
        with suppress(JobError, FaultError, RetryLaterError, PoolClosedError, PoolFullError):
            try:
                value = await job.result(self._random.choice((None, 0.01, 0.1)))
            except TimeoutError:
                if self._random.random() < 0.3:
                    job.cancel()
            else:
                if value != number:
                    self._witness.found(f"job {number} has the result {value}")

    async def _meddle(self) -> None:  # noqa: C901 - one of them at random
        pool, chance = self._pool, self._random
        while self._goes_on and self.report is None:
            await asyncio.sleep(chance.random() * 0.2)
            with suppress(PoolClosedError):
                match chance.randrange(12):
                    case 0:
                        pool.pause(intake=chance.random() < 0.5)
                        await asyncio.sleep(chance.random() * 0.1)
                        pool.resume()
                    case 1:
                        pool.scale(chance.choice((-3, -1, 1, 3)))
                    case 2:
                        least = chance.randint(1, 6)
                        pool.resize(least, least + chance.randint(0, 6))
                    case 3:
                        pool.cancel(key=chance.choice(_KEYS[:-1]))
                    case 4:
                        pool.purge()
                    case 5:
                        pool.restart_workers()
                    case 6:
                        pool.reset_breakers()
                    case 7:
                        self._kill_a_worker()
                    case 8:
                        pool.numbers()
                        pool.health()
                    case _:
                        pool.reconfigure(**changes(chance))
            self._glance()

    def _kill_a_worker(self) -> None:
        """As a fault in the pool itself would."""
        workers = list(self._pool.engine.crew)
        if workers:
            worker = self._random.choice(workers)
            job = worker.job or worker.abandoned
            self._witness.killed += job is not None and job.kind is Kind.THREAD
            worker.ended.cancel()

    async def _close(self) -> None:
        await asyncio.sleep(self._random.random() * _ROUND_S)
        if self._random.random() < 0.3:
            self._pool.close_soon(1.0)
        self.report = await self._pool.close(self._random.choice((0, 0.05, 0.5)))

    async def _rest(self) -> None:
        """Everything that was accepted comes to its end."""
        self._pool.resume()
        self._pool.reconfigure(rate=None, key_rate=None, worker_rate=None, overflow="wait")
        try:
            async with asyncio.timeout(REST_S):
                await self._pool.drain()
        except TimeoutError:
            left = ", ".join(map(repr, self._pool.engine.unfinished()[:5]))
            self._witness.found(f"no rest within {REST_S} s: {self._pool.ledger()} {left}")
            raise

    def _glance(self) -> None:
        """What holds at any moment, also in the middle of everything."""
        ledger = self._pool.ledger()
        if not ledger.balanced:
            self._witness.found(f"the ledger does not add up: {ledger}")
        if ledger.completed < self._witness.states[JobState.COMPLETED]:
            self._witness.found(f"more has completed than the ledger says: {ledger}")

    def _record(self, kind: Kind) -> Record:
        record = Record(next(self._numbers), kind)
        self._witness.records[record.number] = record
        return record

    def _job(self, kind: Kind | None = None, *, nest: bool = True) -> "tuple[Call, Record]":
        chance = self._random
        kind = kind or chance.choices((Kind.LOOP, Kind.THREAD, Kind.PROCESS), (80, 19, 1))[0]
        record = self._record(kind)
        return Call(self._pool, self._witness, record, chance, nest=nest), record


class Call:
    """One job at random: what it does, how long, and with which options."""

    def __init__(
        self, pool: Pool, witness: Witness, record: Record, chance: Random, *, nest: bool
    ) -> None:
        self.deed = chance.choice(_DEEDS if nest else _DEEDS[:-1])
        self.seconds = chance.random() * chance.choice((0.005, 0.02, 0.4))
        is_process = record.kind is Kind.PROCESS
        self.view = pool.options(
            kind=record.kind,
            timeout=1.0 if is_process else chance.choice((0.02, 0.1, 0.3)),
            deadline=chance.choice((None, None, 2.0)),
            expires=chance.choice((None, None, None, 0.05)),
            priority=chance.choice(("high", "normal", "normal", "low")),
            key=chance.choice(_KEYS),
            cost=chance.choice((1, 1, 1, 5)),
            retry=chance.choice(_RETRIES),
            wait=chance.choice((None, None, 0.05)),
        )
        self._function: Callable[..., object]
        self._args: tuple[object, ...] = (witness, record.number, self.deed, self.seconds)
        match record.kind:
            case Kind.LOOP:
                self._function = on_loop
            case Kind.THREAD:
                self._function = in_thread
            case Kind.PROCESS:
                self._function = in_process
                self._args = (witness.log, record.number, chance.choice(_PROCESS_DEEDS))
        self.submit = partial(self.view.submit, self._function, *self._args)
        self.submit_nowait = partial(self.view.submit_nowait, self._function, *self._args)
        self.submit_threadsafe = partial(self.view.submit_threadsafe, self._function, *self._args)


def changes(chance: Random) -> dict[str, Any]:
    """Some settings at random."""
    return {name: chance.choice(values) for name, values in chance.sample(_CHANGES, 3)}
