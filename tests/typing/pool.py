"""How the pool is used, for the type checker; running it runs the jobs."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, assert_type

from mailrace.pool import (
    Backoff,
    CloseReport,
    DeadLetter,
    Health,
    Job,
    JobOptions,
    JobState,
    Ledger,
    Numbers,
    Outcome,
    Plugin,
    Pool,
    PoolFullError,
    PoolSettings,
    RetryLaterError,
    RetryPolicy,
    RetrySchedule,
    Summary,
    Times,
    current_job,
)


async def fetch(url: str, *, size: int = 0) -> bytes:
    return url.encode() + b"." * size


def count(text: str) -> int:
    assert_type(current_job(), Job[Any])
    return len(text)


async def busy() -> None:
    raise RetryLaterError(0.001)


class Fetcher:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    async def __call__(self, number: int) -> str:
        return f"{self.prefix}{number}"

    async def method(self, number: int) -> float:
        return number / 2


class Timing(Plugin):
    def before(self, job: Job[Any]) -> None:
        assert_type(job.attempts, int)

    async def around(self, job: Job[Any], proceed: Callable[[], Awaitable[object]]) -> object:
        return await proceed()


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        yield number


async def results(pool: Pool) -> None:
    assert_type(await pool.submit(fetch, "a", size=1), Job[bytes])
    assert_type(await (await pool.submit(fetch, "a")), bytes)
    assert_type(await pool.submit(count, "a"), Job[int])
    assert_type(pool.submit_nowait(fetch, "a"), Job[bytes])
    assert_type(pool.submit_nowait(count, "a"), Job[int])
    assert_type(await pool.submit(lambda: 1.5), Job[float])
    on_loop = pool.options(kind="loop")
    assert_type(await on_loop.submit(lambda: fetch("a")), Job[bytes])
    assert_type(await pool.submit(functools.partial(count, "a")), Job[int])
    assert_type(await pool.submit(functools.partial(fetch, size=2), "a"), Job[bytes])
    assert_type(await pool.submit(Fetcher("x"), 1), Job[str])
    assert_type(await pool.submit(Fetcher("x").method, 1), Job[float])
    assert_type(await pool.submit(Fetcher, "x"), Job[Fetcher])


async def outcomes(pool: Pool) -> None:
    job = await pool.submit(fetch, "a")
    assert_type(await job.result(timeout=timedelta(seconds=5)), bytes)
    outcome = await job.outcome(5)
    assert_type(outcome, Outcome)
    assert_type(outcome.state, JobState)
    assert_type(outcome.error, BaseException | None)
    assert_type(job.cancel(), bool)


async def many(pool: Pool) -> None:
    async with aclosing(pool.map(fetch, ["a", "b"])) as pages:
        async for page in pages:
            assert_type(page, bytes)
    async for half in pool.map(lambda number: number / 2, numbers(), ordered=False):
        assert_type(half, float)
    async for answer in pool.submit_many(count, ("a", "b")):
        assert_type(answer, Job[Any] | PoolFullError)


async def optioned(pool: Pool) -> None:
    urgent = pool.options(priority="high", timeout=5, key=("tenant", 1), kind="thread")
    assert_type(await urgent.submit(count, "a"), Job[int])
    assert_type(urgent.submit_nowait(count, "a"), Job[int])
    same = pool.options(JobOptions(retry=RetryPolicy(delays=Backoff(attempts=2))))
    assert_type(await same.submit(fetch, "a"), Job[bytes])
    async for length in same.map(count, ["a"]):
        assert_type(length, int)


async def across(pool: Pool) -> None:
    def elsewhere() -> int:
        assert_type(pool.submit_threadsafe(fetch, "a").result(5), bytes)
        future = pool.submit_threadsafe(count, "a")
        assert_type(future.job, Job[int])
        assert_type(future.result(), int)
        return future.result()

    assert_type(await asyncio.to_thread(elsewhere), int)


async def looks(pool: Pool) -> None:
    assert_type(pool.ledger(), Ledger)
    assert_type(pool.numbers(), Numbers)
    assert_type(pool.numbers().run, Times | None)
    times = pool.numbers().wait
    if times is not None:
        assert_type(times.last_minute, Summary)
    assert_type(pool.health(), Health)
    assert_type(pool.settings, PoolSettings)
    retried = pool.options(retry=RetryPolicy(delays=RetrySchedule(delays_s=(0.001,))))
    async with pool.outcomes() as stream:
        job = await retried.submit(busy)
        async for outcome in stream:
            assert_type(outcome, Outcome)
            break
    await job.outcome()
    for letter in pool.dead_letters:
        assert_type(letter, DeadLetter)
        again = await pool.reprocess(letter.id)
        assert_type(again, list[Job[Any]])


async def main() -> None:
    settings = PoolSettings(workers_max=4, rate="1000/s")
    async with Pool(settings, name="typed", plugins=[Timing()], queue_size=50) as pool:
        assert_type(pool, Pool)
        for part in (results, outcomes, many, optioned, across, looks):
            await part(pool)
        await pool.drain()
        assert_type(await pool.close(timedelta(seconds=10)), CloseReport)


if __name__ == "__main__":
    asyncio.run(main())
