"""Whoever is cancelled, wherever they wait: nothing is lost, and nothing happens twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any, Literal
from unittest import mock

import pytest

from mailrace.pool import (
    Backoff,
    JobState,
    PoolFullError,
    PoolSettings,
    RetryPolicy,
    WorkerDiedError,
    current_job,
)
from mailrace.pool.worker import Worker
from tests.pool.plugged import plugged
from tests.pool.workbench import Act, Note, Workbench
from tests.support.clock import settle

When = Literal["alone", "with what it waits for"]
Scenario = Callable[[Workbench], Coroutine[Any, Any, None]]

WORKERS = 2
QUEUE_SIZE = 2
ITEMS = 6
SUSPENSIONS_MAX = 100
SECOND = Act(takes_s=1.0)
WHENS: tuple[When, ...] = ("alone", "with what it waits for")


class Interruption(Awaitable[Any]):
    """Runs a coroutine and cancels it when it waits for the n-th time.

    Args:
        when: The cancel comes while it waits, or in the very turn of the loop in which what it
            waits for has come.
        cancel: How it is cancelled; if not given, by its task.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        at: int,
        when: When,
        cancel: Callable[[], object] | None = None,
    ) -> None:
        self._work = work
        self._left = at
        self._when = when
        self._cancel = cancel
        self.came = False

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            self._left -= 1
            if not self._left:
                self._interrupt(waited)
            try:
                yield waited
            except BaseException as thrown:  # noqa: BLE001 - whatever it is, the coroutine gets it
                error = thrown

    def _interrupt(self, waited: object) -> None:
        self.came = True
        task = asyncio.current_task()
        assert task is not None
        cancel = self._cancel or task.cancel
        if self._when != "alone" and isinstance(waited, asyncio.Future):
            # Added before the task's own callback, and so called before it.
            waited.add_done_callback(lambda _: cancel())
        else:
            asyncio.get_running_loop().call_soon(cancel)


async def interrupted(scenario: Scenario, bench: Workbench, at: int, when: When) -> bool:
    """Plays a scenario with a cancel at one of its suspensions; false if it has fewer."""
    interruption = Interruption(scenario(bench), at, when)

    async def play() -> None:
        await interruption

    task = asyncio.ensure_future(play())
    done = asyncio.ensure_future(asyncio.wait((task,)))
    await bench.until(done)
    if not task.cancelled():
        task.result()
    return interruption.came


async def everywhere(
    play: Callable[[Workbench, int], Awaitable[bool]], settings: PoolSettings | None = None
) -> int:
    """Has something cancelled at every place there is, each time in a pool of its own."""
    for at in range(1, SUSPENSIONS_MAX):
        bench = Workbench(settings or PoolSettings(queue_size=QUEUE_SIZE).changed(workers=WORKERS))
        with bench.watching():
            await bench.pool.start()
            came = await play(bench, at)
            await check_whole(bench)
        if not came:
            return at - 1
    raise AssertionError("it never ends")


async def check_whole(bench: Workbench) -> None:
    """Everything accepted has run as often as it says, and the pool is as good as new."""
    pool, engine = bench.pool, bench.pool.engine
    await bench.until(asyncio.ensure_future(pool.drain()))
    for note in bench.notes:
        if note.made is None or not note.made.id:
            assert not note.runs, "what was not accepted has run"
        else:
            assert note.made.done()
            assert note.runs == note.made.attempts
        assert len(note.returned) <= 1, "it was done twice"
    await bench.clock.advance(100.0)
    ledger = pool.ledger()
    assert ledger.balanced
    assert ledger.accepted == len(bench.accepted())
    assert not ledger.unfinished
    assert not engine.crew.lent
    assert not engine.crew.resuming
    assert not engine.intake.waiting
    assert pool.numbers().workers == len(bench.worker_tasks())
    assert taken(bench) == QUEUE_SIZE, "places were lost, or given twice"
    await pool.close(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def fill(bench: Workbench) -> None:
    """All workers are busy, and the queue is full."""
    fill_up(bench)
    await settle()
    fill_up(bench)


def fill_up(bench: Workbench) -> None:
    for _ in range(WORKERS + QUEUE_SIZE):
        bench.submit_nowait(Note((SECOND,)))


def taken(bench: Workbench) -> int:
    """How many jobs the pool takes while all its workers are busy."""
    pool = bench.pool
    pool.reconfigure(overflow="refuse")
    pool.pause()
    count = 0
    while bench.submit_nowait(Note()):
        count += 1
    return count


async def submits(bench: Workbench) -> None:
    note = Note((SECOND,))
    bench.notes.append(note)
    await bench._submit(note, {"wait": 30.0})


@pytest.mark.parametrize("overflow", ["wait", "spill", "drop oldest", "refuse", "caller runs"])
@pytest.mark.parametrize("when", WHENS)
async def test_a_submitter(when: When, overflow: Any) -> None:
    settings = PoolSettings(queue_size=QUEUE_SIZE, overflow=overflow).changed(workers=WORKERS)

    async def play(bench: Workbench, at: int) -> bool:
        await fill(bench)
        try:
            came = await interrupted(submits, bench, at, when)
        except PoolFullError:
            return False
        made = bench.notes[-1].made
        assert made is not None
        if came and overflow == "wait":
            assert not made.id, "a cancelled submit has enqueued"
        return came

    suspensions = await everywhere(play, settings)
    assert suspensions >= (overflow in {"wait", "caller runs"})


@pytest.mark.parametrize("when", WHENS)
async def test_a_place_goes_on_to_the_next_one_when_its_first_taker_is_cancelled(
    when: When,
) -> None:
    async def play(bench: Workbench, at: int) -> bool:
        await fill(bench)
        others: list[asyncio.Task[Any]] = []

        async def submits_before_others(bench: Workbench) -> None:
            asyncio.get_running_loop().call_soon(
                lambda: others.extend(bench.submit(Note((SECOND,))) for _ in range(3))
            )
            await submits(bench)

        came = await interrupted(submits_before_others, bench, at, when)
        for other in others:
            await bench.until(other)
        assert len(others) == 3
        return came

    assert await everywhere(play) >= 1


@pytest.mark.parametrize("cancel_first", [True, False])
@pytest.mark.parametrize("others", [0, 1, 3])
async def test_a_place_that_comes_in_the_turn_of_the_cancel_is_not_lost(
    others: int, cancel_first: bool
) -> None:
    bench = Workbench(PoolSettings(queue_size=QUEUE_SIZE).changed(workers=WORKERS))
    with bench.watching():
        await bench.pool.start()
        await fill(bench)
        first = bench.submit(Note((SECOND,)))
        next_ones = [bench.submit(Note((SECOND,))) for _ in range(others)]
        await settle()
        if cancel_first:
            first.cancel()
        bench.pool.purge()
        first.cancel()
        await settle()
        assert first.cancelled()
        assert bench.pool.ledger().queued == min(others, QUEUE_SIZE)
        for submitter in next_ones:
            await bench.until(submitter)
        await check_whole(bench)


async def test_a_place_that_comes_when_a_submitter_has_waited_long_enough_is_not_lost() -> None:
    bench = Workbench(PoolSettings(queue_size=QUEUE_SIZE).changed(workers=WORKERS))
    with bench.watching():
        await bench.pool.start()
        await fill(bench)
        late = bench.submit(Note(), wait=0.5)
        patient = bench.submit(Note((SECOND,)))
        await settle()
        bench.clock.move_to(0.5)
        await asyncio.sleep(0)  # the timer has rung, and the submitter has not heard of it yet
        bench.pool.purge()
        await bench.until(patient)
        with pytest.raises(PoolFullError):
            await late
        await check_whole(bench)


@pytest.mark.parametrize("nested", [1, 2])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("when", WHENS)
async def test_a_job_that_waits_for_jobs(when: When, together: bool, nested: int) -> None:
    async def play(bench: Workbench, at: int) -> bool:
        interruptions: list[Interruption] = []

        async def handle(note: Note) -> int:
            job = current_job()
            interruption = Interruption(bench.handle(note), at, when, job.cancel)
            interruptions.append(interruption)
            result: int = await interruption
            return result

        note = Note((Act(takes_s=1.0, nested=nested, together=together),))
        bench.notes.append(note)
        job = await bench.pool.submit(handle, note)
        await fill(bench)
        await bench.until(asyncio.ensure_future(job.outcome()))
        came = interruptions[0].came
        if not came:
            assert job.state is JobState.COMPLETED
        return came

    assert await everywhere(play) >= 2


@pytest.mark.parametrize("timeout", [None, 50.0])
@pytest.mark.parametrize("when", WHENS)
async def test_a_reader_of_a_job(when: When, timeout: float | None) -> None:
    async def play(bench: Workbench, at: int) -> bool:
        assert bench.submit_nowait(Note((Act(takes_s=1.0, ends="retry later"), SECOND)))
        job = bench.notes[0].job
        assert job is not None

        async def reads(_: Workbench) -> None:
            await job.outcome(timeout)

        other = asyncio.ensure_future(job.outcome())
        came = await interrupted(reads, bench, at, when)
        await bench.until(other)
        assert job.state is JobState.FAILED  # no retry policy
        assert bench.notes[0].told == 1
        return came

    assert await everywhere(play) == 1


@pytest.mark.parametrize("slow", ["wait", "drop oldest"])
@pytest.mark.parametrize("when", WHENS)
async def test_a_reader_of_a_stream(when: When, slow: Any) -> None:
    async def play(bench: Workbench, at: int) -> bool:
        follower = bench.follow(10, slow)
        await fill(bench)

        async def reads(_: Workbench) -> None:
            while len(follower.received) < WORKERS + QUEUE_SIZE:
                follower.received.append(await anext(follower.stream))

        came = await interrupted(reads, bench, at, when)
        await bench.until(asyncio.ensure_future(reads(bench)))
        follower.check()
        assert [outcome.job_id for outcome in follower.received] == follower.expected
        follower.closed = True
        follower.stream.close()
        return came

    assert await everywhere(play) >= 2


def items(bench: Workbench) -> list[Note]:
    notes = [Note((Act(takes_s=0.0 if number % 2 else 1.0),)) for number in range(ITEMS)]
    bench.notes += notes
    return notes


async def one_by_one(notes: list[Note]) -> AsyncIterator[Note]:
    for note in notes:
        await asyncio.sleep(0)
        yield note


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", [list, one_by_one])
@pytest.mark.parametrize("when", WHENS)
async def test_a_consumer_of_map(when: When, source: Any, ordered: bool) -> None:
    async def play(bench: Workbench, at: int) -> bool:
        results: list[int] = []

        async def consumes(bench: Workbench) -> None:
            source_ = source(items(bench))
            async with aclosing(bench.pool.map(bench.handle, source_, ordered=ordered)) as them:
                async for result in them:
                    results.append(result)  # noqa: PERF401 - those before a cancel count

        came = await interrupted(consumes, bench, at, when)
        ledger = bench.pool.ledger()
        assert not ledger.queued, "what nobody waits for was left in the queue"
        if not came:
            assert results == [1] * ITEMS
        return came

    assert await everywhere(play) >= 2


@pytest.mark.parametrize("overflow", ["wait", "refuse"])
@pytest.mark.parametrize("source", [list, one_by_one])
@pytest.mark.parametrize("when", WHENS)
async def test_a_consumer_of_submit_many(when: When, source: Any, overflow: Any) -> None:
    settings = PoolSettings(queue_size=QUEUE_SIZE, overflow=overflow).changed(workers=WORKERS)

    async def play(bench: Workbench, at: int) -> bool:
        answers: list[Any] = []

        async def consumes(bench: Workbench) -> None:
            source_ = source(items(bench))
            async with aclosing(bench.pool.submit_many(bench.handle, source_)) as them:
                async for answer in them:
                    answers.append(answer)  # noqa: PERF401 - those before a cancel count

        came = await interrupted(consumes, bench, at, when)
        jobs = [answer for answer in answers if not isinstance(answer, PoolFullError)]
        assert jobs == bench.accepted(), "an answer was lost"
        if not came:
            assert len(answers) == ITEMS
        return came

    assert await everywhere(play, settings) >= 2


@pytest.mark.parametrize("when", WHENS)
async def test_who_waits_for_quiet(when: When) -> None:
    async def play(bench: Workbench, at: int) -> bool:
        await fill(bench)

        async def drains(bench: Workbench) -> None:
            await bench.pool.drain()

        return await interrupted(drains, bench, at, when)

    assert await everywhere(play) == 1


@pytest.mark.parametrize("retry", [None, RetryPolicy(delays=Backoff(attempts=5))])
@pytest.mark.parametrize("when", WHENS)
async def test_a_worker(when: When, retry: RetryPolicy | None) -> None:
    work = Worker._work

    async def play(bench: Workbench, at: int) -> bool:
        interruptions: list[Interruption] = []

        async def work_until_cancelled(worker: Worker) -> None:
            if interruptions:
                await work(worker)
                return
            interruption = Interruption(work(worker), at, when)
            interruptions.append(interruption)
            await interruption

        with mock.patch.object(Worker, "_work", work_until_cancelled):
            bench.pool.restart_workers()
            await settle()
            for act in (SECOND, Act(), Act(takes_s=1.0, nested=1), Act(takes_s=0.0)):
                note = Note((act,))
                await bench.until(bench.submit(note, retry=retry))
            await bench.until(asyncio.ensure_future(bench.pool.drain()))
        for note in bench.notes:
            assert note.made is not None
            if note.made.state is JobState.FAILED:
                assert isinstance(note.made.error, WorkerDiedError)
        assert sum(note.made.state is JobState.FAILED for note in bench.notes if note.made) <= 1
        return interruptions[0].came

    assert await everywhere(play) >= 3


async def test_a_cancel_of_no_key_is_for_the_jobs_without_one() -> None:
    async with plugged() as bench:
        jobs = {
            key: [bench.pool.options(key=key).submit_nowait(bench.note, n) for n in range(3)]
            for key in (None, "ada", 0)
        }
        assert bench.pool.cancel(key="ada") == 3
        assert bench.pool.cancel(key="nobody") == 0
        for job in jobs[0]:
            assert not job.done()
        assert bench.pool.cancel(key=None) == 4, "the one that keeps the worker busy has none"
        assert [job.done() for job in jobs[0]] == [False] * 3
        assert bench.pool.cancel() == 3
