"""The way into a pool: its bounds by count and by bytes, and those who wait for room."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import (
    Job,
    JobExpiredError,
    JobState,
    Pool,
    PoolFullError,
    RetryPolicy,
    RetrySchedule,
)
from tests.pool.plugged import Plugged, plugged
from tests.support.clock import settle

AnyJob = Job[Any]


def entering(bench: Plugged, label: object, **options: Any) -> "asyncio.Task[AnyJob]":
    """Begins a submit that may have to wait."""
    view = bench.pool.options(**options)
    return asyncio.ensure_future(view.submit(bench.note, label))


async def test_the_queue_takes_as_many_as_its_size_and_not_one_more() -> None:
    async with plugged(queue_size=3) as bench:
        for label in range(3):
            bench.pool.submit_nowait(bench.note, label)
        with pytest.raises(PoolFullError, match="the queue is full: 3 jobs wait"):
            bench.pool.submit_nowait(bench.note, "one more")
        ledger = bench.pool.ledger()
        assert (ledger.accepted, ledger.queued, ledger.refused) == (4, 3, 1)
        await bench.unplug()
        assert bench.ran == [0, 1, 2]


async def test_a_refused_job_leaves_nothing_behind() -> None:
    async with plugged(queue_size=1) as bench:
        bench.pool.submit_nowait(bench.note, "first")
        strict = bench.pool.options(expires=5, deadline=9)
        for _ in range(3):
            with pytest.raises(PoolFullError):
                strict.submit_nowait(bench.note, "refused")
        assert len(bench.pool.engine.timers) == 0
        assert bench.pool.numbers().waiting_submits == 0
        await bench.unplug()
        await bench.clock.advance(100)
        assert bench.ran == ["first"]
        assert bench.pool.ledger().expired == 0


async def test_those_who_wait_are_let_in_by_priority_and_first_come_first_served() -> None:
    async with plugged(queue_size=1) as bench:
        bench.pool.submit_nowait(bench.note, "queued")
        asked = {
            label: entering(bench, label, priority=label.split()[0])
            for label in ("normal 1", "low 1", "high 1", "normal 2", "high 2", "low 2")
        }
        await settle()
        assert bench.pool.numbers().waiting_submits == 6
        await bench.unplug()
        came = sorted(asked, key=lambda label: asked[label].result().id)
        assert came == ["high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]


async def test_nobody_overtakes_those_who_wait() -> None:
    async with plugged(queue_size=2) as bench:
        first, _ = [bench.pool.submit_nowait(bench.note, number) for number in range(2)]
        waiting = entering(bench, "waits")
        await settle()
        first.cancel()
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "pushes in")
        assert (await waiting).state is JobState.AVAILABLE


async def test_a_wait_for_room_ends_when_its_time_is_over() -> None:
    async with plugged(queue_size=1) as bench:
        bench.pool.submit_nowait(bench.note, "queued")
        waiting = entering(bench, "late", wait=5)
        await bench.clock.advance(4.9)
        assert not waiting.done()
        await bench.clock.advance(0.1)
        with pytest.raises(PoolFullError, match=r"no room within 5\.0 s"):
            await waiting
        assert bench.pool.ledger().refused == 1
        assert bench.pool.numbers().waiting_submits == 0
        await bench.unplug()
        assert bench.ran == ["queued"]


async def test_a_wait_that_brought_room_in_time_leaves_no_timer() -> None:
    async with plugged(queue_size=1) as bench:
        queued = bench.pool.submit_nowait(bench.note, "queued")
        waiting = entering(bench, "in time", wait=5)
        await bench.clock.advance(4.9)
        queued.cancel()
        assert await (await asyncio.gather(waiting, bench.unplug()))[0] == "in time"
        assert len(bench.pool.engine.timers) == 0
        assert bench.pool.ledger().refused == 0


async def test_a_submit_that_is_cancelled_has_enqueued_nothing() -> None:
    async with plugged(queue_size=1) as bench:
        bench.pool.submit_nowait(bench.note, "queued")
        waiting = [entering(bench, number) for number in range(3)]
        await settle()
        waiting[0].cancel()
        await settle()
        assert waiting[0].cancelled()
        assert bench.pool.numbers().waiting_submits == 2
        await bench.unplug()
        assert bench.ran == ["queued", 1, 2]
        assert bench.pool.ledger().accepted == 4


async def test_a_place_that_came_in_the_very_turn_of_the_cancel_goes_to_the_next() -> None:
    async with plugged(queue_size=1) as bench:
        queued = bench.pool.submit_nowait(bench.note, "queued")
        first, second = entering(bench, "first"), entering(bench, "second")
        await settle()
        queued.cancel()  # whose place is given to the first one at once
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()
        assert bench.pool.ledger().queued == 1
        await bench.unplug()
        assert bench.ran == ["second"]


async def test_a_place_that_nobody_wants_any_more_is_free_again() -> None:
    async with plugged(queue_size=1, queue_bytes=10) as bench:
        queued = bench.pool.submit_nowait(bench.note, "ten bytes!")
        waiting = entering(bench, "other ten!")
        await settle()
        queued.cancel()
        waiting.cancel()
        await settle()
        assert bench.pool.numbers().queued_bytes == 0
        bench.pool.submit_nowait(bench.note, "ten again!")


async def test_expired_jobs_leave_before_anybody_is_refused() -> None:
    async with plugged(queue_size=2) as bench:
        short = bench.pool.options(expires=5)
        jobs = [short.submit_nowait(bench.note, number) for number in range(2)]
        bench.clock.move_to(5.0)  # and the loop has had no turn to notice
        bench.pool.submit_nowait(bench.note, "in time")
        assert [job.state for job in jobs] == [JobState.EXPIRED, JobState.EXPIRED]
        with pytest.raises(JobExpiredError):
            await jobs[0]
        await bench.unplug()
        assert bench.ran == ["in time"]
        assert bench.pool.ledger().refused == 0


async def test_a_job_that_waits_for_its_next_attempt_keeps_its_place() -> None:
    attempts: list[int] = []

    async def failing_once() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError
        return "done"

    async with plugged(queue_size=2) as bench:
        again = bench.pool.options(retry=RetryPolicy(delays=RetrySchedule((10.0,))))
        job = again.submit_nowait(failing_once)
        await bench.unplug()
        assert bench.pool.ledger().delayed == 1
        await bench.plug()
        bench.pool.submit_nowait(bench.note, "the other place")
        with pytest.raises(PoolFullError, match="1 jobs wait, 1 for their next attempt"):
            bench.pool.submit_nowait(bench.note, "no place")
        await bench.clock.advance(10)
        assert (bench.pool.ledger().queued, bench.pool.ledger().delayed) == (2, 0)
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "still none")
        await bench.unplug()
        assert await job == "done"
        assert bench.pool.ledger().refused == 2


async def test_a_retry_comes_back_into_a_queue_that_is_full() -> None:
    attempts: list[int] = []

    async def failing_once() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError

    async with plugged(queue_size=1) as bench:
        again = bench.pool.options(retry=RetryPolicy(delays=RetrySchedule((10.0,))))
        job = again.submit_nowait(failing_once)
        waiting = entering(bench, "waits")
        await bench.unplug()  # the job fails while its place is taken by the one that waited
        await waiting.result()
        assert bench.pool.ledger().delayed == 1
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "no place")
        await bench.clock.advance(10)
        await job
        assert len(attempts) == 2
        bench.pool.submit_nowait(bench.note, "the place is free")


async def test_a_smaller_queue_refuses_what_is_new_and_evicts_nothing() -> None:
    async with plugged(queue_size=5) as bench:
        jobs = [bench.pool.submit_nowait(bench.note, number) for number in range(5)]
        bench.pool.reconfigure(queue_size=2)
        assert bench.pool.ledger().queued == 5
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "new")
        for job in jobs[:3]:
            job.cancel()
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "two still wait")
        jobs[3].cancel()
        bench.pool.submit_nowait(bench.note, "fits")
        await bench.unplug()
        assert bench.ran == [4, "fits"]
        assert bench.pool.ledger().dropped == 0


async def test_a_larger_queue_lets_in_those_who_wait_at_once() -> None:
    async with plugged(queue_size=1) as bench:
        bench.pool.submit_nowait(bench.note, 0)
        waiting = [entering(bench, number) for number in range(1, 5)]
        await settle()
        bench.pool.reconfigure(queue_size=3)
        await settle()
        assert [task.done() for task in waiting] == [True, True, False, False]


async def test_a_pause_of_the_intake_holds_submits_until_the_pool_goes_on() -> None:
    async with plugged() as bench:
        bench.pool.pause(intake=True)
        waiting = entering(bench, "waits")
        await settle()
        assert not waiting.done()
        with pytest.raises(PoolFullError, match="paused"):
            bench.pool.submit_nowait(bench.note, "refused")
        bench.pool.resume()
        await bench.unplug()
        assert await waiting.result() == "waits"
        assert bench.ran == ["waits"]


@pytest.mark.parametrize(
    "overflow", ["refuse", "drop oldest", "drop lowest", "caller runs", "spill"]
)
async def test_no_overflow_policy_gets_anything_past_a_held_intake(overflow: Any) -> None:
    async with plugged(overflow=overflow) as bench:
        bench.pool.submit_nowait(bench.note, "queued")
        bench.pool.pause(intake=True)
        with pytest.raises(PoolFullError, match="paused"):
            await bench.pool.options(priority="high").submit(bench.note, "refused")
        assert bench.pool.ledger().accepted == 2
        bench.pool.resume()


# By bytes.


async def test_what_waits_may_occupy_so_many_bytes_and_not_one_more() -> None:
    async with plugged(queue_bytes=100) as bench:
        bench.pool.submit_nowait(bench.note, b"x" * 60)
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, b"x" * 41)
        bench.pool.submit_nowait(bench.note, "y" * 40)
        assert bench.pool.numbers().queued_bytes == 100
        bench.pool.options(size_bytes=0).submit_nowait(bench.note, "declared as nothing")
        await bench.unplug()
        assert len(bench.ran) == 3
        assert bench.pool.numbers().queued_bytes == 0


async def test_a_job_larger_than_the_whole_queue_is_a_mistake_and_is_told_so() -> None:
    async with plugged(queue_bytes=100) as bench:
        with pytest.raises(MisuseError, match="the job is 101 bytes, and queue_bytes is 100"):
            await bench.pool.submit(bench.note, b"x" * 101)
        large = bench.pool.options(size_bytes=500)
        with pytest.raises(MisuseError, match="500 bytes"):
            large.submit_nowait(bench.note, "declared")
        assert bench.pool.ledger().accepted == 1


async def test_two_who_wait_do_not_get_the_same_bytes() -> None:
    async with plugged(queue_bytes=100) as bench:
        queued = bench.pool.submit_nowait(bench.note, "q" * 100)
        waiting = [entering(bench, label * 60) for label in "ab"]
        await settle()
        queued.cancel()
        await settle()
        assert [task.done() for task in waiting] == [True, False]
        assert bench.pool.numbers().queued_bytes == 60


async def test_bytes_that_are_promised_survive_a_change_of_settings() -> None:
    async with plugged(queue_bytes=100) as bench:
        queued = bench.pool.submit_nowait(bench.note, "q" * 100)
        waiting = entering(bench, "a" * 60)
        await settle()
        queued.cancel()
        bench.pool.reconfigure(queue_bytes=110)
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "b" * 51)
        await waiting
        assert bench.pool.numbers().queued_bytes == 60


async def test_who_waits_behind_a_large_one_goes_when_that_one_gives_up() -> None:
    async with plugged(queue_bytes=100) as bench:
        bench.pool.submit_nowait(bench.note, "q" * 60)
        large, small = entering(bench, "l" * 50), entering(bench, "s" * 30)
        await settle()
        assert not small.done(), "first come, first served"
        large.cancel()
        await settle()
        assert small.done()


async def test_who_comes_before_a_large_one_by_priority_does_not_wait_behind_it() -> None:
    async with plugged(queue_bytes=100) as bench:
        bench.pool.submit_nowait(bench.note, "q" * 60)
        large = entering(bench, "l" * 50, priority="low")
        await settle()
        small = entering(bench, "s" * 30)
        await settle()
        assert small.done()
        assert not large.done()


async def test_a_retry_occupies_its_bytes_while_it_waits_and_frees_them_once() -> None:
    async def failing(data: bytes) -> None:
        raise ValueError

    async with plugged(queue_bytes=100) as bench:
        again = bench.pool.options(retry=RetryPolicy(delays=RetrySchedule((10.0, 10.0))))
        job = again.submit_nowait(failing, b"x" * 60)
        await bench.unplug()
        for _ in range(2):
            assert bench.pool.numbers().queued_bytes == 60
            with pytest.raises(PoolFullError):
                bench.pool.submit_nowait(bench.note, b"y" * 41)
            await bench.clock.advance(10)
        assert job.state is JobState.FAILED
        assert bench.pool.numbers().queued_bytes == 0
        other = again.submit_nowait(failing, b"x" * 60)
        await settle()
        other.cancel()
        assert bench.pool.numbers().queued_bytes == 0


async def test_a_bound_by_bytes_can_come_and_go_while_jobs_wait() -> None:
    async with plugged() as bench:
        bench.pool.submit_nowait(bench.note, "x" * 60)
        bench.pool.reconfigure(queue_bytes=100)
        assert bench.pool.numbers().queued_bytes == 60
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, "y" * 50)
        bench.pool.reconfigure(queue_bytes=None)
        bench.pool.submit_nowait(bench.note, "y" * 500)
        assert bench.pool.numbers().queued_bytes == 0


async def test_who_waits_with_more_than_a_new_bound_allows_goes_in_alone() -> None:
    async with plugged(queue_bytes=100) as bench:
        queued = bench.pool.submit_nowait(bench.note, "q" * 50)
        large, small = entering(bench, "l" * 90), entering(bench, "s" * 30)
        await settle()
        bench.pool.reconfigure(queue_bytes=60)
        queued.cancel()
        await settle()
        assert large.done()
        assert not small.done()
        await bench.unplug()
        assert bench.ran == ["l" * 90, "s" * 30]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 100), st.integers(-1, 1)),
        st.tuples(st.just("cancel job"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("cancel submit"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("run one"), st.just(0), st.just(0)),
        st.tuples(st.just("resize"), st.integers(100, 200), st.integers(1, 6)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, hasty=st.booleans())
def test_the_bounds_hold_and_no_place_is_lost_whoever_comes_and_goes(
    steps: list[tuple[str, int, int]], hasty: bool
) -> None:
    asyncio.run(come_and_go(steps, hasty=hasty))


async def come_and_go(steps: list[tuple[str, int, int]], *, hasty: bool) -> None:
    turnstile = asyncio.Semaphore(0)

    async def handle(size: int) -> None:
        await turnstile.acquire()

    async with Pool(workers=1, queue_size=4, queue_bytes=150) as pool:
        tasks: list[asyncio.Task[AnyJob]] = []
        submits = 0
        for step, number, other in steps:
            entered = [task.result() for task in tasks if task.done() and not task.cancelled()]
            waiting = [task for task in tasks if not task.done()]
            if step == "submit":
                view = pool.options(size_bytes=number, priority=other)
                tasks.append(asyncio.ensure_future(view.submit(handle, number)))
                submits += 1
            elif step == "cancel job" and entered:
                entered[number % len(entered)].cancel()
            elif step == "cancel submit" and waiting:
                waiting[number % len(waiting)].cancel()
            elif step == "run one":
                turnstile.release()
            elif step == "resize":
                pool.reconfigure(queue_bytes=number, queue_size=other)
            if not hasty:
                await settle()
                check_bounds(pool)
        await settle()
        check_bounds(pool)
        for _ in range(submits):
            turnstile.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.drain()
        assert pool.engine.intake.room == pool.settings.queue_size
        assert pool.numbers().queued_bytes == 0
        cancelled_submits = sum(task.cancelled() for task in tasks)
        assert pool.ledger().accepted == submits - cancelled_submits


def check_bounds(pool: Pool) -> None:
    intake, limit = pool.engine.intake, pool.settings.queue_bytes
    assert limit is not None
    jobs = list(pool.engine.backlog.jobs())
    sizes = [job.terms.size_bytes or 0 for job in jobs]
    assert pool.ledger().balanced
    assert intake.room == pool.settings.queue_size - len(jobs)
    assert intake.queued_bytes == sum(sizes)
    if intake.waiting:
        ask = intake._line.head()
        assert ask is not None
        head = ask.job
        room = intake.room > 0 and sum(sizes) + (head.terms.size_bytes or 0) <= limit
        assert not room, "somebody waits although there is room"
