"""Outcomes as a stream: order, slow readers, readers that leave, and programs that never look."""

import asyncio
import gc
import threading
import traceback
import tracemalloc
import weakref
from typing import Any

import pytest

from mailrace.errors import MisuseError
from mailrace.pool import (
    Job,
    JobState,
    Outcome,
    OutcomeStream,
    Pool,
    Reason,
    RetryPolicy,
    RetrySchedule,
)
from tests.pool.plugged import plugged
from tests.support.clock import VirtualClock, settle


async def same(value: Any) -> Any:
    return value


async def fail() -> None:
    raise ZeroDivisionError("no")


async def values(stream: OutcomeStream, count: int) -> list[Any]:
    return [(await anext(stream)).value for _ in range(count)]


async def rest(stream: OutcomeStream) -> list[Any]:
    return [outcome.value async for outcome in stream]


async def run(pool: Pool, *labels: object) -> None:
    """Has so many jobs done, one after the other."""
    for label in labels:
        await (await pool.submit(same, label))


async def test_outcomes_come_in_the_order_in_which_jobs_end() -> None:
    clock = VirtualClock(auto=True)
    async with Pool(workers=3, clock=clock) as pool:
        stream = pool.outcomes()
        for seconds in (3.0, 1.0, 2.0):
            await pool.submit(clock.sleep_s, seconds)
        ids = [(await anext(stream)).job_id for _ in range(3)]
        assert ids == [2, 3, 1]


async def test_an_outcome_tells_everything_of_its_job() -> None:
    async with plugged() as bench:
        stream = bench.pool.outcomes()
        view = bench.pool.options(key="tenant", name="noting", metadata={"order": 7})
        job = view.submit_nowait(bench.note, "value")
        failing = bench.pool.submit_nowait(fail)
        bench.pool.submit_nowait(bench.note, "gone").cancel()
        gone = await anext(stream)
        assert (gone.state, gone.reason, gone.worker) == (
            *(JobState.CANCELLED, Reason.REQUESTED, None),
        )
        await bench.clock.advance(5)
        await bench.unplug()
        await anext(stream)  # the plug
        outcome, failed = await anext(stream), await anext(stream)
        assert outcome == await job.outcome()
        assert outcome == Outcome(
            job_id=job.id,
            name="noting",
            state=JobState.COMPLETED,
            reason=Reason.RESULT,
            value="value",
            error=None,
            attempts=1,
            waited_s=5.0,
            ran_s=0.0,
            worker=1,
            key="tenant",
            metadata={"order": 7},
        )
        assert (failed.job_id, failed.state) == (failing.id, JobState.FAILED)
        assert isinstance(failed.error, ZeroDivisionError)


async def test_a_stream_begins_when_it_is_made_and_each_has_them_all() -> None:
    async with Pool(workers=1) as pool:
        await run(pool, "before")
        first = pool.outcomes()
        await run(pool, 1)
        second = pool.outcomes()
        await run(pool, 2)
        assert await values(first, 2) == [1, 2]
        assert await values(second, 1) == [2]


async def test_retries_are_told_of_only_if_asked_for() -> None:
    async with plugged() as bench:
        finals, attempts = bench.pool.outcomes(), bench.pool.outcomes(retries=True)
        again = bench.pool.options(retry=RetryPolicy(delays=RetrySchedule((1.0, 1.0))))
        again.submit_nowait(fail)
        await bench.unplug()
        await bench.clock.advance(2)
        for stream in (finals, attempts):
            await anext(stream)  # the plug
        told = [await anext(attempts) for _ in range(3)]
        assert [outcome.state for outcome in told] == [
            *(JobState.RETRYABLE, JobState.RETRYABLE, JobState.FAILED),
        ]
        assert [outcome.attempts for outcome in told] == [1, 2, 3]
        last = await anext(finals)
        assert (last.state, last.attempts) == (JobState.FAILED, 3)
        attempts.close()
        assert not bench.pool.engine.books.streams.retries


# Slow readers.


@pytest.mark.parametrize(("slow", "kept"), [("drop oldest", [7, 8, 9]), ("drop newest", [0, 1, 2])])
async def test_a_slow_reader_misses_some_and_is_told_how_many(slow: Any, kept: list[int]) -> None:
    async with Pool(workers=1) as pool:
        stream = pool.outcomes(buffer=3, slow=slow)
        await run(pool, *range(10))
        assert stream.missed == 7
        assert await values(stream, 3) == kept
        await run(pool, "later")
        assert await values(stream, 1) == ["later"]
        assert stream.missed == 7


@pytest.mark.parametrize("workers", [1, 5])
async def test_a_pool_waits_for_a_reader_if_asked_to_and_goes_on_when_it_has_read(
    workers: int,
) -> None:
    async with Pool(workers=workers) as pool:
        stream = pool.outcomes(buffer=3, slow="wait")
        jobs = [pool.submit_nowait(same, number) for number in range(20)]
        await settle()
        done = sum(job.done() for job in jobs)
        assert 3 <= done < 3 + workers
        assert pool.ledger().queued == 20 - done
        await settle()
        assert sum(job.done() for job in jobs) == done, "it stands still"
        assert sorted(await values(stream, 20)) == list(range(20)), "and misses nothing"
        assert stream.missed == 0
        await run(pool, *range(2))


async def test_a_reader_that_leaves_lets_a_pool_go_on_that_waited_for_it() -> None:
    async with Pool(workers=1) as pool:
        for way in ("close", "forget", "leave"):
            stream = pool.outcomes(buffer=1, slow="wait")
            jobs = [pool.submit_nowait(same, number) for number in range(5)]
            await settle()
            assert not jobs[-1].done()
            if way == "close":
                stream.close()
            elif way == "leave":
                async with stream:
                    pass
            del stream
            gc.collect()
            await settle()
            assert jobs[-1].done(), way


async def test_one_slow_reader_takes_nothing_from_the_others() -> None:
    async with Pool(workers=1) as pool:
        slow, fast = pool.outcomes(buffer=1), pool.outcomes(buffer=100)
        await run(pool, *range(10))
        assert (slow.missed, fast.missed) == (9, 0)
        assert await values(fast, 10) == list(range(10))


@pytest.mark.parametrize("wrong", [{"buffer": 0}, {"buffer": -1}, {"slow": "drop"}, {"slow": ""}])
async def test_a_stream_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    async with Pool() as pool:
        (name,) = wrong
        with pytest.raises(MisuseError, match=f"{name} is"):
            pool.outcomes(**wrong)
        assert not pool.engine.books.streams


# Readers.


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    async with Pool(workers=1) as pool:
        stream = pool.outcomes()
        reading = asyncio.ensure_future(anext(stream))
        await settle()
        reading.cancel()
        await settle()
        await run(pool, 1)
        assert await values(stream, 1) == [1]


async def test_a_reader_that_is_cancelled_in_the_turn_of_the_outcome_loses_nothing() -> None:
    async with plugged() as bench:
        stream = bench.pool.outcomes()
        reading = asyncio.ensure_future(anext(stream))
        await settle()
        job = bench.pool.submit_nowait(bench.note, "gone")
        job.cancel()  # the reader is woken for it
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await anext(stream)).job_id == job.id


@pytest.mark.parametrize("turns", range(6))
async def test_a_reader_with_a_timeout_at_any_turn_gets_every_outcome_once(turns: int) -> None:
    async with Pool(workers=2) as pool:
        stream = pool.outcomes()
        read: list[Any] = []

        async def read_some() -> None:
            while len(read) < 30:
                outcome = await anext(stream)
                read.append(outcome.value)  # no await between the two: nothing is in between
                await asyncio.sleep(0)

        jobs = [pool.submit_nowait(same, number) for number in range(30)]
        while len(read) < 30:
            reader = asyncio.ensure_future(read_some())
            for _ in range(turns):
                await asyncio.sleep(0)
            reader.cancel() if len(read) < 20 and turns else None
            await asyncio.wait((reader,))
        assert read == list(range(30))
        assert all(job.done() for job in jobs)


async def test_two_tasks_cannot_read_one_stream() -> None:
    async with Pool() as pool:
        stream = pool.outcomes()
        reading = asyncio.ensure_future(anext(stream))
        await settle()
        with pytest.raises(MisuseError, match="two tasks read one stream"):
            await anext(stream)
        await run(pool, 1)
        assert (await reading).value == 1


async def test_a_stream_ends_with_its_pool_after_everything_was_read() -> None:
    async with Pool(workers=1) as pool:
        stream, waiting = pool.outcomes(), pool.outcomes()
        reading = asyncio.ensure_future(rest(waiting))
        await run(pool, 1, 2)
    assert await rest(stream) == [1, 2]
    assert await rest(stream) == []
    assert await reading == [1, 2]


async def test_jobs_that_are_handed_back_are_in_the_stream_too() -> None:
    async with plugged() as bench:
        stream = bench.pool.outcomes()
        bench.pool.submit_nowait(bench.note, "waiting")
        await bench.pool.close(0)
        outcomes = [outcome async for outcome in stream]
        assert [outcome.state for outcome in outcomes] == [JobState.HANDED_BACK] * 2


async def test_a_closed_stream_takes_nothing_in_and_gives_what_it_has() -> None:
    async with Pool(workers=1) as pool:
        async with pool.outcomes() as stream:
            await run(pool, 1)
        await run(pool, 2)
        stream.close()
        assert await rest(stream) == [1]
        assert not pool.engine.books.streams
        assert not pool.engine.observed


# Nobody looks.


async def test_a_stream_that_was_forgotten_is_dropped() -> None:
    async with Pool(workers=1) as pool:
        stream = pool.outcomes()
        gone = weakref.ref(stream)
        await run(pool, *range(5))
        del stream
        gc.collect()
        await settle()
        assert gone() is None
        assert not pool.engine.books.streams
        assert not pool.engine.observed
        await run(pool, 1)


async def test_a_stream_that_another_thread_forgets_wakes_the_pool_by_way_of_the_loop() -> None:
    async with Pool(workers=1) as pool:
        stream = pool.outcomes(buffer=1, slow="wait")
        streams = [stream]
        del stream
        jobs = [pool.submit_nowait(same, number) for number in range(3)]
        await settle()
        assert not jobs[-1].done()
        seen: list[threading.Thread] = []
        look = pool.engine.look

        def watched() -> None:
            seen.append(threading.current_thread())
            look()

        pool.engine.books.streams._on_change = watched
        await asyncio.to_thread(streams.clear)
        assert await jobs[-1].result(20) == 2
        assert set(seen) == {threading.main_thread()}


@pytest.mark.parametrize("slow", ["drop oldest", "drop newest"])
async def test_a_stream_that_nobody_reads_does_not_grow(slow: Any) -> None:
    async with Pool(workers=1, queue_size=1000) as pool:
        stream = pool.outcomes(buffer=10, slow=slow)
        async for _ in pool.map(same, range(2000)):
            pass
        assert len(stream._outcomes) == 10
        assert stream.missed == 1990


async def test_a_program_that_looks_at_no_outcome_leaks_nothing() -> None:
    async def submit(count: int) -> None:
        for number in range(count):
            await pool.submit(
                fail if number % 10 == 0 else same, *([] if number % 10 == 0 else [1])
            )
        await pool.drain()

    async with Pool(workers=4, queue_size=100, dead_letters=10) as pool:
        await submit(5_000)
        tracemalloc.start()
        try:
            await submit(3_000)
            gc.collect()
            before_bytes, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            await submit(40_000)
            gc.collect()
            after_bytes, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert pool.ledger().final == 48_000
    assert after_bytes - before_bytes < 200_000, "five bytes a job"
    assert peak_bytes - before_bytes < 1_000_000


class Payload:
    """Something large in the hands of a function."""


async def test_a_job_that_has_ended_holds_neither_its_arguments_nor_what_its_function_held() -> (
    None
):
    payloads: list[weakref.ref[Payload]] = []

    async def work(argument: Payload, *, ends: str) -> None:
        local = Payload()
        payloads.append(weakref.ref(local))
        await asyncio.sleep(0)
        if ends == "raises":
            raise ZeroDivisionError from KeyError(1)
        if ends == "waits":
            await asyncio.Event().wait()

    async with Pool(workers=2, dead_letters=0) as pool:
        jobs = []
        for ends in ("returns", "raises", "waits"):
            argument = Payload()
            payloads.append(weakref.ref(argument))
            jobs.append(await pool.submit(work, argument, ends=ends))
        del argument
        await settle()
        jobs[-1].cancel()
        await settle()
        assert [job.state for job in jobs] == [
            *(JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED),
        ]
        gc.collect()
        assert len(payloads) == 6
        assert [payload() for payload in payloads] == [None] * 6
        with pytest.raises(ZeroDivisionError):
            await jobs[1]


async def test_what_a_function_in_a_thread_held_is_let_go_when_it_has_failed() -> None:
    payloads: list[weakref.ref[Payload]] = []

    def work(argument: Payload) -> None:
        local = Payload()
        payloads.extend(map(weakref.ref, (argument, local)))
        raise ZeroDivisionError

    async with Pool(workers=1, dead_letters=0) as pool:
        job = await pool.submit(work, Payload())
        with pytest.raises(ZeroDivisionError):
            await job
        await settle()
        gc.collect()
        assert [payload() for payload in payloads] == [None, None]


async def test_a_job_that_nobody_holds_is_gone_with_its_result() -> None:
    results: list[weakref.ref[Payload]] = []

    async def make() -> Payload:
        result = Payload()
        results.append(weakref.ref(result))
        return result

    async with Pool(workers=2) as pool:
        for _ in range(100):
            await pool.submit(make)
        await pool.drain()
        await settle()
        gc.collect()
        alive = [result for result in results if result() is not None]
        assert len(results) == 100
        assert len(alive) <= 2, "at most what a worker had in its hands last"


def frames(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


async def test_an_error_that_many_await_grows_no_frames_and_keeps_no_reader() -> None:
    readers: list[weakref.ref[Payload]] = []
    depths: list[int] = []
    texts: list[str] = []

    async def read(job: Job[None]) -> None:
        own = Payload()
        readers.append(weakref.ref(own))
        try:
            await job
        except ZeroDivisionError as error:
            depths.append(frames(error))
            texts.append("".join(traceback.format_exception(error)))

    async with Pool(workers=1) as pool:
        job = await pool.submit(fail)
        await asyncio.gather(*[read(job) for _ in range(50)])
        for _ in range(50):
            await read(job)
        assert len(depths) == 100
        assert len(set(depths)) == 1
        assert all("in fail" in text and "in read" in text for text in texts)
        gc.collect()
        alive = [reader for reader in readers if reader() is not None]
        assert len(alive) <= 1, "at most the last one's, as with a future of asyncio"
        del job
        await pool.submit(same, 1)
        await pool.drain()
        gc.collect()
        assert [reader for reader in readers if reader() is not None] == []
