"""Many jobs from iterables of every kind: pulled as there is room, answered one by one."""

import asyncio
import contextlib
import gc
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import Job, JobState, Pool, PoolFullError, PoolSettings
from tests.pool.plugged import plugged
from tests.support.clock import VirtualClock, settle


class Source:
    """An endless or limited source that counts what was taken from it."""

    def __init__(self, count: int | None = None, *, error: Exception | None = None) -> None:
        self.pulled = 0
        self.closed = False
        self.tasks: set[str] = set()
        self._count = count
        self._error = error

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count() if self._count is None else range(self._count):
            self.pulled += 1
            yield number
        if self._error is not None:
            raise self._error

    async def slowly(self) -> AsyncIterator[int]:
        self.tasks.add(task_name())
        try:
            for number in self:
                self.tasks.add(task_name())
                yield number
                await asyncio.sleep(0)
        finally:
            self.tasks.add(task_name())
            self.closed = True


def task_name() -> str:
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


async def double(number: int) -> int:
    return 2 * number


def iterables(count: int) -> dict[str, Any]:
    return {
        "list": list(range(count)),
        "range": range(count),
        "generator": (number for number in range(count)),
        "iterator": iter(range(count)),
        "async generator": Source(count).slowly(),
    }


KINDS = tuple(iterables(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 50])
async def test_every_item_of_any_iterable_is_submitted_and_answered(kind: str, count: int) -> None:
    async with Pool(workers=3, queue_size=4) as pool:
        answers = [job async for job in pool.submit_many(double, iterables(count)[kind])]
        results = [await job for job in answers if isinstance(job, Job)]
    assert results == [2 * number for number in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_map_gives_a_result_for_every_item(kind: str, ordered: bool) -> None:
    async with Pool(workers=3, queue_size=4) as pool:
        mapped = pool.map(double, iterables(50)[kind], ordered=ordered)
        results = [result async for result in mapped]
    assert sorted(results) == [2 * number for number in range(50)]
    assert not ordered or results == sorted(results)


@pytest.mark.parametrize("method", ["submit_many", "map"])
async def test_what_is_no_iterable_is_told_so(method: str) -> None:
    async with Pool() as pool:
        with pytest.raises(MisuseError, match="items is 5; give an iterable"):
            await anext(getattr(pool, method)(double, 5))


# One answer for each.


async def test_items_that_are_refused_are_answered_in_their_place() -> None:
    async with plugged(queue_size=2, overflow="refuse") as bench:
        answers = [answer async for answer in bench.pool.submit_many(bench.note, "abcde")]
        kinds = [type(answer) for answer in answers]
        assert kinds == [Job, Job, PoolFullError, PoolFullError, PoolFullError]
        assert bench.pool.ledger().refused == 3
        await bench.unplug()
        assert bench.ran == ["a", "b"]


async def test_whoever_feeds_a_refusing_pool_lets_it_work_meanwhile() -> None:
    async with Pool(workers=1, queue_size=1, overflow="refuse") as pool:
        answers = [answer async for answer in pool.submit_many(double, range(1000))]
        accepted = [job for job in answers if isinstance(job, Job)]
        assert len(answers) == 1000
        assert len(accepted) > 100


async def test_submits_use_the_options_of_their_view() -> None:
    async with Pool() as pool:
        view = pool.options(key="tenant", name="doubling")
        jobs = [job async for job in view.submit_many(double, range(3))]
        assert {job.key for job in jobs if isinstance(job, Job)} == {"tenant"}


async def test_who_stops_submitting_keeps_the_jobs_that_were_accepted() -> None:
    source = Source()
    async with plugged() as bench:
        async for job in bench.pool.submit_many(bench.note, source):
            if isinstance(job, Job) and job.args == (4,):
                break
        await settle()
        await bench.unplug()
        assert bench.ran == [0, 1, 2, 3, 4]


async def test_an_error_of_the_iterable_comes_after_the_answers_before_it() -> None:
    source = Source(3, error=ZeroDivisionError("source"))
    async with Pool() as pool:
        answers = pool.submit_many(double, source)
        jobs = [await anext(answers) for _ in range(3)]
        assert [await job for job in jobs if isinstance(job, Job)] == [0, 2, 4]
        with pytest.raises(ZeroDivisionError, match="source"):
            await anext(answers)
        await pool.drain()
        assert pool.ledger().completed == 3


# Lazily.


@pytest.mark.parametrize("pace", ["sync", "async"])
async def test_an_endless_source_is_pulled_no_further_than_there_is_room(pace: str) -> None:
    source = Source()
    async with plugged(queue_size=10) as bench:
        items: Any = source if pace == "sync" else source.slowly()
        answers = bench.pool.submit_many(bench.note, items)
        for _ in range(10):
            await anext(answers)
        waiting = asyncio.ensure_future(anext(answers))
        await settle()
        assert not waiting.done()
        assert source.pulled == 11
        await bench.unplug()
        await waiting
        await answers.aclose()


@settings(max_examples=60, deadline=None)
@given(
    queue_size=st.integers(1, 20),
    workers=st.integers(1, 5),
    read=st.integers(0, 60),
    ordered=st.booleans(),
    endless=st.sampled_from(["sync", "async"]),
)
def test_a_map_pulls_no_further_ahead_of_its_results_than_the_pool_holds(
    queue_size: int, workers: int, read: int, ordered: bool, endless: str
) -> None:
    async def main() -> None:
        source = Source()
        items: Any = source if endless == "sync" else source.slowly()
        async with Pool(workers=workers, queue_size=queue_size) as pool:
            async with aclosing(pool.map(double, items, ordered=ordered)) as results:
                for count in range(1, read + 1):
                    await anext(results)
                    assert source.pulled <= count + queue_size + workers
            await settle()
            assert pool.ledger().unfinished == 0
            assert pool.ledger().balanced

    asyncio.run(main())


async def test_nothing_is_pulled_before_the_first_result_is_asked_for() -> None:
    source = Source()
    async with Pool() as pool:
        mapped = pool.map(double, source)
        many = pool.submit_many(double, source.slowly())
        await settle()
        assert source.pulled == 0
        await mapped.aclose()
        await many.aclose()


# Order.


async def test_results_come_in_order_or_as_they_are_done() -> None:
    clock = VirtualClock(auto=True)

    async def nap(seconds: float) -> float:
        await clock.sleep_s(seconds)
        return seconds

    async with Pool(workers=10, clock=clock) as pool:
        naps = [5.0, 1.0, 9.0, 3.0]
        assert [result async for result in pool.map(nap, naps)] == naps
        unordered = [result async for result in pool.map(nap, naps, ordered=False)]
        assert unordered == sorted(naps)


@pytest.mark.parametrize("ordered", [True, False])
async def test_results_do_not_wait_for_a_source_that_takes_its_time(ordered: bool) -> None:
    async with Pool(workers=2) as pool:
        seen: list[int] = []
        more = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            for number in range(5):
                yield number
                await more.wait()  # for the result of what it has given
                more.clear()

        async for result in pool.map(double, source(), ordered=ordered):
            seen.append(result)
            more.set()
        assert seen == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("leaving", ["end", "break"])
async def test_a_source_lives_and_ends_in_one_task(leaving: str) -> None:
    source = Source(20)
    async with Pool(workers=2) as pool:
        async for result in pool.map(double, source.slowly()):
            if leaving == "break" and result == 10:
                break
        for _ in range(3):  # whoever leaves early leaves the source to the collector
            await settle()
            gc.collect()
    assert source.closed
    assert len(source.tasks) == 1 or leaving == "break"


# Errors and early ends.


async def fail_at_3(number: int) -> int:
    await asyncio.sleep(0)
    if number == 3:
        raise ZeroDivisionError(number)
    return number


@pytest.mark.parametrize("pace", ["sync", "async"])
async def test_an_error_of_a_job_is_raised_where_its_result_would_be(pace: str) -> None:
    source = Source()
    items: Any = source if pace == "sync" else source.slowly()
    async with Pool(workers=2, queue_size=10) as pool:
        results = pool.map(fail_at_3, items)
        assert [await anext(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            await anext(results)
        await settle()
        assert pool.ledger().unfinished == 0, "what was left is cancelled"


async def test_an_error_of_a_job_ends_a_map_as_it_comes_and_cancels_the_rest() -> None:
    async with Pool(workers=2, queue_size=10) as pool:
        with pytest.raises(ZeroDivisionError):
            async for _ in pool.map(fail_at_3, itertools.count(), ordered=False):
                pass
        await settle()
        assert pool.ledger().unfinished == 0
        assert pool.ledger().failed == 1


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("pace", ["sync", "async"])
async def test_an_error_of_the_source_ends_a_map_and_cancels_the_rest(
    ordered: bool, pace: str
) -> None:
    source = Source(3, error=ZeroDivisionError("source"))
    items: Any = source if pace == "sync" else source.slowly()
    async with plugged() as bench:
        mapped = bench.pool.map(bench.note, items, ordered=ordered)
        with pytest.raises(ZeroDivisionError, match="source"):
            await anext(mapped)
        assert bench.pool.ledger().cancelled == 3
        assert bench.pool.ledger().queued == 0


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("pace", ["sync", "async"])
async def test_leaving_a_map_early_cancels_what_is_left(ordered: bool, pace: str) -> None:
    source = Source()
    items: Any = source if pace == "sync" else source.slowly()
    async with Pool(workers=2, queue_size=10) as pool:
        async for _ in pool.map(double, items, ordered=ordered):
            break
        await settle()
        gc.collect()
        await settle()
        ledger = pool.ledger()
        assert ledger.unfinished == 0
        assert ledger.cancelled > 0 or ledger.completed > 0
        assert ledger.balanced


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("pace", ["sync", "async"])
async def test_a_reader_of_a_map_that_is_cancelled_cancels_all_its_jobs(
    ordered: bool, pace: str
) -> None:
    started: list[int] = []

    async def never(number: int) -> None:
        started.append(number)
        await asyncio.Event().wait()

    async def read(mapped: Any) -> None:
        async with aclosing(mapped):
            await anext(mapped)

    source = Source(5)
    items: Any = source if pace == "sync" else source.slowly()
    async with Pool(workers=2, queue_size=10) as pool:
        reader = asyncio.ensure_future(read(pool.map(never, items, ordered=ordered)))
        await settle()
        assert started == [0, 1]
        reader.cancel()
        await settle()
        assert reader.cancelled()
        ledger = pool.ledger()
        assert ledger.unfinished == 0, "the one that was waited for included"
        assert ledger.cancelled == 5


async def test_a_closed_pool_ends_a_map() -> None:
    async with plugged() as bench:
        mapped = asyncio.ensure_future(anext(bench.pool.map(bench.note, Source())))
        await settle()
        await bench.pool.close(0)
        with pytest.raises(MisuseError, match="closed"):
            await mapped


@pytest.mark.parametrize("overflow", ["refuse", "drop oldest", "drop lowest", "spill"])
async def test_a_map_waits_for_room_whatever_the_policy(overflow: Any) -> None:
    async with Pool(workers=1, queue_size=2, overflow=overflow) as pool:
        assert [result async for result in pool.map(double, range(100))] == [
            2 * number for number in range(100)
        ]
        assert pool.ledger().refused == pool.ledger().dropped == 0


async def test_a_job_may_map_over_its_own_full_pool() -> None:
    async def total(numbers: Iterable[int]) -> int:
        ordered = [result async for result in pool.map(double, numbers)]
        anyhow = [result async for result in pool.map(double, Source(3).slowly(), ordered=False)]
        return sum(ordered) + sum(anyhow)

    async with Pool(workers=1, queue_size=1) as pool:
        outer = [pool.map(total, [range(10)]) for _ in range(3)]
        assert await asyncio.gather(*map(anext, outer)) == [96, 96, 96]
        for mapped in outer:
            await mapped.aclose()
        assert pool.ledger().completed == pool.ledger().accepted == 3 * (1 + 10 + 3)


async def test_ordinary_functions_are_mapped_in_threads() -> None:
    async with Pool(workers=2) as pool:
        assert [result async for result in pool.map(str, range(20))] == list(map(str, range(20)))


# What it costs.


@pytest.mark.parametrize("way", ["submit many", "map", "map as completed"])
async def test_memory_stays_flat_however_many_items_go_through_a_small_queue(way: str) -> None:
    async def consume(pool: Pool, count: int) -> int:
        seen = 0
        ways: dict[str, Callable[[], Any]] = {
            "submit many": lambda: pool.submit_many(double, range(count)),
            "map": lambda: pool.map(double, range(count)),
            "map as completed": lambda: pool.map(double, range(count), ordered=False),
        }
        async for _ in ways[way]():
            seen += 1
        return seen

    async with Pool(workers=10, queue_size=100) as pool:
        await consume(pool, 10_000)
        tracemalloc.start()
        try:
            await consume(pool, 5_000)
            gc.collect()
            tracemalloc.reset_peak()
            before_bytes, _ = tracemalloc.get_traced_memory()
            assert await consume(pool, 100_000) == 100_000
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # A job is about 400 bytes: 110 of them at once are 44 kB, all of them would be 40 MB.
    assert peak_bytes - before_bytes < 500_000


@pytest.mark.parametrize("way", ["submit many", "map"])
async def test_the_loop_stays_responsive_while_a_source_is_worked_off(way: str) -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Pool(workers=4, queue_size=100_000) as pool:
        ticking = asyncio.ensure_future(tick())
        source: Any = pool.submit_many if way == "submit many" else pool.map
        async for _ in source(double, range(20_000)):
            pass
        await pool.drain()
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
    assert turns >= 200, "one turn for every hundred items at least"


async def test_a_job_that_was_mapped_is_forgotten_with_its_result() -> None:
    async with Pool(workers=2, queue_size=10) as pool:
        async with aclosing(pool.map(double, range(100))) as results:
            for _ in range(50):
                await anext(results)
            gc.collect()
            alive = sum(isinstance(found, Job) for found in gc.get_objects())
            assert alive <= 10 + 2 + 10
        assert pool.ledger().accepted == pool.ledger().final
        states = {JobState.COMPLETED, JobState.CANCELLED}
        assert sum(pool.engine.books.ended[state] for state in states) < 100


async def test_a_hundred_thousand_jobs_go_through_the_smallest_profile() -> None:
    async with Pool(PoolSettings.resource_constrained()) as pool:
        total = 0
        async for result in pool.map(itself, range(100_000)):
            assert result == total
            total += 1
        ledger = pool.ledger()
    assert ledger.completed == ledger.accepted == total == 100_000
    assert pool.numbers().deaths == 0


async def itself(number: int) -> int:
    return number
