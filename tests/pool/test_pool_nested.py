"""Jobs that submit to their own pool and wait for its jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from mailrace.pool import (
    JobState,
    JobTimeoutError,
    Pool,
)
from tests.support.clock import VirtualClock, settle

WAIT_S = 60.0
TENANT: ContextVar[str] = ContextVar("TENANT", default="nobody")


@pytest.fixture
async def narrow() -> AsyncIterator[Pool]:
    """The narrowest pool there is: one worker and one place in the queue."""
    async with asyncio.timeout(WAIT_S), Pool(workers=1, queue_size=1) as pool:
        yield pool
        await settle()
        assert pool.numbers().workers == 1
        assert not pool.engine.attention
        ledger = pool.ledger()
        assert ledger.accepted == ledger.completed + ledger.failed + ledger.cancelled


class Inside:
    """Counts how many jobs are at work at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def work(self, steps: int = 3) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(steps):
            await asyncio.sleep(0)
        self.now -= 1


async def test_a_job_submits_to_its_own_full_pool(narrow: Pool) -> None:
    async def outer(number: int) -> list[int]:
        jobs = [await narrow.submit(inner, number, part) for part in range(5)]
        return [await job for job in jobs]

    async def inner(number: int, part: int) -> int:
        return 10 * number + part

    jobs = [await narrow.submit(outer, number) for number in range(5)]
    results = [await job for job in jobs]
    assert results == [[10 * number + part for part in range(5)] for number in range(5)]


@pytest.mark.parametrize("workers", [1, 3])
async def test_jobs_wait_for_jobs_fifty_deep(workers: int) -> None:
    async def down(depth: int) -> int:
        return 0 if depth == 0 else 1 + await (await pool.submit(down, depth - 1))

    async with asyncio.timeout(WAIT_S), Pool(workers=workers, queue_size=1) as pool:
        jobs = [await pool.submit(down, 50) for _ in range(3)]
        assert [await job for job in jobs] == [50, 50, 50]
        await settle()
        assert pool.numbers().workers == workers


async def test_a_job_fans_out_and_in_again(narrow: Pool) -> None:
    async def tree(depth: int) -> int:
        if depth == 0:
            return 1
        parts = await asyncio.gather(*[branch(depth - 1) for _ in range(3)])
        return sum(parts)

    async def branch(depth: int) -> int:
        return await (await narrow.submit(tree, depth))

    assert await (await narrow.submit(tree, 4)) == 81


async def test_thread_jobs_wait_for_jobs_of_their_own_pool(narrow: Pool) -> None:
    def down(depth: int) -> int:
        if depth == 0:
            return 0
        return 1 + narrow.submit_threadsafe(down, depth - 1).result(WAIT_S)

    assert await (await narrow.submit(down, 8)) == 8


async def test_thread_jobs_fan_out(narrow: Pool) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    def all_of_them() -> list[int]:
        futures = [narrow.submit_threadsafe(double, number) for number in range(10)]
        return [future.result() for future in futures]

    assert await (await narrow.submit(all_of_them)) == list(range(0, 20, 2))


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_job_maps_over_its_own_pool(narrow: Pool, ordered: bool) -> None:
    async def square(number: int) -> int:
        return number * number

    async def squares() -> list[int]:
        return [result async for result in narrow.map(square, range(20), ordered=ordered)]

    assert sorted(await (await narrow.submit(squares))) == [n * n for n in range(20)]


async def test_what_a_nested_job_raises_comes_out_in_the_outer_one(narrow: Pool) -> None:
    async def fails() -> None:
        raise KeyError("inside")

    async def outer() -> None:
        await (await narrow.submit(fails))

    with pytest.raises(KeyError, match="inside"):
        await (await narrow.submit(outer))


async def test_one_worker_is_strictly_one_job_at_a_time_also_with_nested_ones(
    narrow: Pool,
) -> None:
    inside = Inside()

    async def outer() -> None:
        await inside.work()
        for _ in range(3):
            await (await narrow.submit(inside.work))
            await inside.work()

    jobs = [await narrow.submit(outer) for _ in range(4)]
    for job in jobs:
        await job
    assert inside.most == 1


@pytest.mark.parametrize("threads", [True, False])
async def test_a_wait_that_is_given_up_gets_its_place_back_first(
    narrow: Pool, threads: bool
) -> None:
    inside = 0
    most: list[int] = []

    async def long() -> None:
        nonlocal inside
        inside += 1
        await asyncio.sleep(0.1)
        inside -= 1

    async def impatient() -> None:
        job = await narrow.submit(long)
        with pytest.raises(TimeoutError):
            await job.result(0.02)
        most.append(inside)

    def impatient_thread() -> None:
        future = narrow.submit_threadsafe(long)
        with pytest.raises(TimeoutError):
            future.result(0.02)
        most.append(inside)

    if threads:
        await (await narrow.submit(impatient_thread))
    else:
        await (await narrow.submit(impatient))
    assert most == [0]


@given_settings(max_examples=30, deadline=None)
@given(
    workers=st.integers(1, 3),
    queue_size=st.integers(1, 3),
    shape=st.recursive(st.just([]), lambda below: st.lists(below, max_size=3), max_leaves=12),
    together=st.booleans(),
)
def test_jobs_of_any_shape_come_to_their_end_with_no_more_at_work_than_workers(
    workers: int, queue_size: int, shape: list[Any], together: bool
) -> None:
    inside = Inside()

    async def run() -> None:
        async def node(parts: list[Any]) -> int:
            await inside.work()
            if together:
                return 1 + sum(await asyncio.gather(*map(below, parts)))
            return 1 + sum([await below(part) for part in parts])

        async def below(part: list[Any]) -> int:
            return await (await pool.submit(node, part))

        async with Pool(workers=workers, queue_size=queue_size) as pool:
            jobs = [await pool.submit(node, shape) for _ in range(3)]
            assert [await job for job in jobs] == [size(shape)] * 3
            await settle()
            assert pool.numbers().workers == workers
            assert not pool.engine.attention

    asyncio.run(run())
    assert inside.most <= workers


def size(shape: list[Any]) -> int:
    return 1 + sum(map(size, shape))


async def test_a_job_that_waits_for_another_is_cancelled_and_timed_out_like_any() -> None:
    clock = VirtualClock()

    async def waits() -> None:
        await (await pool.submit(clock.sleep_s, 100.0))

    async with Pool(workers=1, clock=clock) as pool:
        timed = await pool.options(timeout=5.0).submit(waits)
        await clock.advance(5.0)
        with pytest.raises(JobTimeoutError):
            await timed
        cancelled = await pool.submit(waits)
        await clock.advance(100.0)
        assert not cancelled.done()
        assert cancelled.cancel()
        await settle()
        assert cancelled.state is JobState.CANCELLED
        await clock.advance(100.0)
        assert pool.ledger().completed == 2
        assert pool.numbers().workers == 1


async def test_a_place_that_was_lent_leaves_no_worker_too_many_behind(narrow: Pool) -> None:
    gate = asyncio.Event()

    async def outer() -> None:
        await (await narrow.submit(asyncio.sleep, 0))
        await gate.wait()

    job = await narrow.submit(outer)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not job.done()
    assert narrow.numbers().workers == 1
    gate.set()
    await job


async def test_two_pools_whose_jobs_wait_for_each_other_do_not_stand_still() -> None:
    async def there_and_back(depth: int) -> int:
        if depth == 0:
            return 0
        other = second if depth % 2 else first
        return 1 + await (await other.submit(there_and_back, depth - 1))

    async with asyncio.timeout(WAIT_S), Pool(workers=3) as first, Pool(workers=3) as second:
        assert await (await first.submit(there_and_back, 4)) == 4
