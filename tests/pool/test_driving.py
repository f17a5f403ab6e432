"""Coroutines inside a worker's task: each as if it had a task and a context of its own."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from types import coroutine
from typing import Any, NoReturn

import anyio
import pytest
import uvloop

from mailrace.pool import Job, JobState, Outcome, Pool, Reason

LONG_S = 60.0
PLACE: ContextVar[str] = ContextVar("place", default="nowhere")

Play = Callable[[Pool], Coroutine[Any, Any, None]]
Run = Callable[[Play], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Plays with a pool of one worker, which has to be the same one in the end, unless told."""

    def play(what: Play) -> None:
        async def main() -> None:
            async with Pool(workers=1) as pool:
                async with asyncio.timeout(LONG_S):
                    await what(pool)
                    assert await (await pool.submit(add, 1, 2)) == 3
                assert pool.ledger().balanced

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return play


async def add(one: int, other: int) -> int:
    await asyncio.sleep(0)
    return one + other


async def ended(pool: Pool, function: Callable[..., Any], *args: Any) -> Outcome:
    outcome = await (await pool.submit(function, *args)).outcome()
    assert pool.numbers().deaths == 0
    assert [worker.number for worker in pool.engine.crew] == [1]
    return outcome


# Context.


def test_a_job_sees_the_context_of_its_submit_and_keeps_its_own_changes(run: Run) -> None:
    async def move(to: str) -> tuple[str, str, str]:
        before = PLACE.get()
        PLACE.set(to)
        first = PLACE.get()
        await asyncio.sleep(0)
        return before, first, PLACE.get()

    async def play(pool: Pool) -> None:
        PLACE.set("here")
        first = await pool.submit(move, "there")
        PLACE.set("elsewhere")
        second = await pool.submit(move, "away")
        assert await first == ("here", "there", "there")
        assert await second == ("elsewhere", "away", "away")
        assert PLACE.get() == "elsewhere"

    run(play)


def test_a_context_variable_can_be_reset_after_a_wait(run: Run) -> None:
    async def visit() -> str:
        token = PLACE.set("there")
        await asyncio.sleep(0)
        PLACE.reset(token)
        return PLACE.get()

    async def play(pool: Pool) -> None:
        assert (await ended(pool, visit)).value == "nowhere"

    run(play)


def test_tasks_that_a_job_starts_have_its_context(run: Run) -> None:
    async def look() -> str:
        return PLACE.get()

    async def delegate() -> list[str]:
        await asyncio.sleep(0)
        PLACE.set("there")
        return list(await asyncio.gather(look(), asyncio.create_task(look())))

    async def play(pool: Pool) -> None:
        assert (await ended(pool, delegate)).value == ["there", "there"]

    run(play)


# Tasks.


def test_the_current_task_is_one_and_the_same_all_along(run: Run) -> None:
    async def tasks() -> set[asyncio.Task[Any] | None]:
        found = {asyncio.current_task()}
        for _ in range(3):
            await asyncio.sleep(0)
            found.add(asyncio.current_task())
        return found

    async def play(pool: Pool) -> None:
        (task,) = (await ended(pool, tasks)).value
        assert task is not None

    run(play)


def test_a_time_limit_inside_a_job_ends_only_what_is_in_it(run: Run) -> None:
    async def give_up() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LONG_S)
        except TimeoutError:
            await asyncio.sleep(0)
            return "gave up"
        return "got through"

    async def play(pool: Pool) -> None:
        assert (await ended(pool, give_up)).value == "gave up"

    run(play)


def test_the_outer_one_of_two_time_limits_ends_both(run: Run) -> None:
    async def give_up() -> str:
        try:
            async with asyncio.timeout(0.001):
                try:
                    async with asyncio.timeout(LONG_S):
                        await asyncio.sleep(LONG_S)
                except TimeoutError:
                    return "the inner one"
        except TimeoutError:
            return "the outer one"
        return "none"

    async def play(pool: Pool) -> None:
        assert (await ended(pool, give_up)).value == "the outer one"

    run(play)


def test_a_time_limit_that_ends_with_the_result_leaves_the_job_alone(run: Run) -> None:
    async def hurry(result: asyncio.Future[str]) -> str:
        async with asyncio.timeout(LONG_S) as limit:
            asyncio.get_running_loop().call_soon(result.set_result, "done")
            asyncio.get_running_loop().call_soon(limit.reschedule, 0.0)
            value = await result
        await asyncio.sleep(0)
        return value

    async def play(pool: Pool) -> None:
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        assert (await ended(pool, hurry, result)).value == "done"

    run(play)


def test_a_time_limit_that_is_not_reached_costs_nothing(run: Run) -> None:
    async def hurry() -> str:
        async with asyncio.timeout(LONG_S):
            await asyncio.sleep(0)
        return "done"

    async def play(pool: Pool) -> None:
        assert (await ended(pool, hurry)).value == "done"

    run(play)


def test_a_task_group_brings_its_results_or_its_errors(run: Run) -> None:
    async def group(*, fails: bool) -> int:
        async with asyncio.TaskGroup() as tasks:
            sums = [tasks.create_task(add(number, number)) for number in range(3)]
            if fails:
                tasks.create_task(fail())
            await asyncio.sleep(0 if not fails else LONG_S)
        return sum(task.result() for task in sums)

    async def fail() -> NoReturn:
        await asyncio.sleep(0)
        raise LookupError

    async def play(pool: Pool) -> None:
        assert (await ended(pool, partial(group, fails=False))).value == 6
        error = (await ended(pool, partial(group, fails=True))).error
        assert isinstance(error, ExceptionGroup)
        assert [type(one) for one in error.exceptions] == [LookupError]

    run(play)


def test_cancel_scopes_of_anyio_work(run: Run) -> None:
    async def move_on() -> str:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep(LONG_S)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, LONG_S)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        return "moved on" if scope.cancelled_caught else "did not"

    async def play(pool: Pool) -> None:
        assert (await ended(pool, move_on)).value == "moved on"

    run(play)


# Cancels.


async def cancelled_with_result(pool: Pool, function: Callable[..., Any]) -> Outcome:
    """Cancels a job in the turn of the loop in which what it waits for has come."""
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.Event()
    job = await pool.submit(function, waiting, result)
    await waiting.wait()
    result.set_result("done")
    assert job.cancel()
    return await job.outcome()


def test_a_result_that_came_with_the_cancel_wins(run: Run) -> None:
    async def wait(waiting: asyncio.Event, result: asyncio.Future[str]) -> str:
        waiting.set()
        return await result

    async def play(pool: Pool) -> None:
        outcome = await cancelled_with_result(pool, wait)
        assert (outcome.state, outcome.value) == (JobState.COMPLETED, "done")

    run(play)


@pytest.mark.parametrize("seconds", [0, LONG_S])
def test_a_job_that_has_its_result_is_cancelled_when_it_waits_again(
    run: Run, seconds: float
) -> None:
    seen: list[str] = []

    async def wait(waiting: asyncio.Event, result: asyncio.Future[str]) -> None:
        waiting.set()
        seen.append(await result)
        await asyncio.sleep(seconds)
        await asyncio.sleep(LONG_S)
        seen.append("went on")

    async def play(pool: Pool) -> None:
        outcome = await cancelled_with_result(pool, wait)
        assert outcome.state is JobState.CANCELLED
        assert outcome.reason is Reason.REQUESTED
        assert seen == ["done"]

    run(play)


def test_a_cancel_is_not_lost_on_something_that_is_done_already(run: Run) -> None:
    class Done:
        def __await__(self) -> Generator[Any, None, None]:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            done._asyncio_future_blocking = True
            yield done

    seen: list[str] = []

    async def wait(waiting: asyncio.Event, result: asyncio.Future[str]) -> None:
        waiting.set()
        seen.append(await result)
        await Done()
        seen.append("got through what was done")
        await asyncio.sleep(LONG_S)

    async def play(pool: Pool) -> None:
        outcome = await cancelled_with_result(pool, wait)
        assert outcome.state is JobState.CANCELLED
        assert seen[0] == "done"

    run(play)


def test_the_next_job_knows_nothing_of_the_cancel_of_the_one_before(run: Run) -> None:
    async def cancelled(pool: Pool, function: Callable[..., Any]) -> Job[Any]:
        waiting = asyncio.Event()
        job = await pool.submit(function, waiting)
        await waiting.wait()
        assert job.cancel()
        return job

    async def swallow(waiting: asyncio.Event) -> str:
        waiting.set()
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "swallowed"

    async def obey(waiting: asyncio.Event) -> None:
        waiting.set()
        await asyncio.sleep(LONG_S)

    async def give_up() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LONG_S)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return "gave up"

    async def play(pool: Pool) -> None:
        swallowed = await cancelled(pool, swallow)
        assert await swallowed == "swallowed"
        assert (await ended(pool, give_up)).value == "gave up"
        obeyed = await cancelled(pool, obey)
        assert (await obeyed.outcome()).state is JobState.CANCELLED
        assert (await ended(pool, give_up)).value == "gave up"

    run(play)


def test_a_job_is_told_only_once_that_it_is_cancelled(run: Run) -> None:
    async def tidy_up(waiting: asyncio.Event) -> str:
        waiting.set()
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            for _ in range(3):
                await asyncio.sleep(0.001)
        return "tidy"

    async def play(pool: Pool) -> None:
        waiting = asyncio.Event()
        job = await pool.submit(tidy_up, waiting)
        await waiting.wait()
        assert job.cancel()
        assert not job.cancel(), "it is being cancelled already"
        assert await job == "tidy"

    run(play)


def test_a_job_that_raises_the_cancel_itself_is_cancelled(run: Run) -> None:
    async def leave() -> NoReturn:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def play(pool: Pool) -> None:
        outcome = await ended(pool, leave)
        assert (outcome.state, outcome.reason) == (JobState.CANCELLED, Reason.HANDLER)

    run(play)


@pytest.mark.parametrize("waits", [0, 1, 2])
def test_a_job_that_cancels_its_task_ends_alone(run: Run, waits: int) -> None:
    async def cancel(waits: int) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        for _ in range(waits):
            await asyncio.sleep(0)
        return "returned"

    async def play(pool: Pool) -> None:
        jobs: list[Job[Any]] = [await pool.submit(cancel, waits)]
        jobs.extend([await pool.submit(add, 1, number) for number in range(3)])
        outcomes = [await job.outcome() for job in jobs]
        assert outcomes[0].state in {JobState.FAILED, JobState.CANCELLED, JobState.COMPLETED}
        assert (outcomes[0].state is JobState.COMPLETED) == (waits == 0)
        assert [outcome.value for outcome in outcomes[1:]] == [1, 2, 3]

    run(play)


# What functions may be and do.


@coroutine
def by_generator(value: str) -> Generator[Any, None, str]:
    yield from asyncio.sleep(0).__await__()
    return value


class Later:
    """Something to be awaited that is no coroutine."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        yield
        return self._value


class Callee:
    async def __call__(self, value: str) -> str:
        await asyncio.sleep(0)
        return value

    async def method(self, value: str) -> str:
        return await Later(value)


def returns_a_task(value: str) -> Awaitable[str]:
    return asyncio.ensure_future(Callee()(value))


async def awaits_a_generator(value: str) -> str:
    return await by_generator(value)


AWAITABLES: list[Callable[[str], Any]] = [
    Callee(),
    Callee().method,
    partial(Callee().method),
    awaits_a_generator,
    by_generator,
    Later,
    returns_a_task,
    str,
]


@pytest.mark.parametrize("function", AWAITABLES)
def test_whatever_a_function_of_the_loop_returns_is_awaited(
    run: Run, function: Callable[[str], Any]
) -> None:
    async def play(pool: Pool) -> None:
        job: Job[Any] = await pool.options(kind="loop").submit(function, "done")
        assert await job == "done"

    run(play)


def test_a_function_that_raises_stop_iteration_fails_like_any_other(run: Run) -> None:
    def stop(value: object = None) -> NoReturn:
        raise StopIteration(value)

    async def stop_later() -> NoReturn:
        await asyncio.sleep(0)
        raise StopIteration

    async def stop_iterating() -> NoReturn:
        await asyncio.sleep(0)
        raise StopAsyncIteration

    class Stops:
        def __await__(self) -> Generator[Any, None, Any]:
            raise StopIteration("no result of its own")

    async def play(pool: Pool) -> None:
        on_loop = pool.options(kind="loop")
        jobs: list[Job[Any]] = [
            await on_loop.submit(stop),
            await on_loop.submit(stop, "no result"),
            await pool.submit(stop),
            await pool.submit(stop_later),
            await pool.submit(stop_iterating),
        ]
        for job in jobs:
            outcome = await job.outcome()
            assert outcome.state is JobState.FAILED
            assert isinstance(outcome.error, RuntimeError | StopAsyncIteration | StopIteration)
        assert (await (await on_loop.submit(Stops)).outcome()).state is JobState.FAILED
        assert pool.numbers().deaths == 0

    run(play)


def test_errors_that_are_meant_for_the_whole_program_end_only_the_job(run: Run) -> None:
    async def leave(error: type[BaseException]) -> NoReturn:
        await asyncio.sleep(0)
        raise error

    async def play(pool: Pool) -> None:
        assert isinstance((await ended(pool, leave, SystemExit)).error, SystemExit)

    run(play)


def test_a_job_that_raises_the_end_of_a_generator_is_accounted_for(run: Run) -> None:
    async def leave() -> NoReturn:
        await asyncio.sleep(0)
        raise GeneratorExit

    async def play(pool: Pool) -> None:
        outcome = await (await pool.submit(leave)).outcome()
        assert outcome.state is JobState.FAILED

    run(play)


async def count(left: list[str]) -> AsyncGenerator[int, None]:
    try:
        for number in range(100):
            await asyncio.sleep(0)
            yield number
    finally:
        left.append("closed")


def test_async_generators_can_be_read_and_left_in_a_job(run: Run) -> None:
    async def read(left: list[str]) -> list[int]:
        numbers: list[int] = []
        async with aclosing(count(left)) as generator:
            async for number in generator:
                numbers.append(number)
                if number == 2:
                    break
        return numbers

    async def play(pool: Pool) -> None:
        left: list[str] = []
        assert (await ended(pool, read, left)).value == [0, 1, 2]
        assert left == ["closed"]

    run(play)


def test_an_async_generator_that_a_job_forgets_is_closed_by_the_loop(run: Run) -> None:
    async def forget(left: list[str]) -> int:
        async for number in count(left):
            return number
        return -1

    async def play(pool: Pool) -> None:
        left: list[str] = []
        assert (await ended(pool, forget, left)).value == 0
        for _ in range(5):
            await asyncio.sleep(0)
        assert left == ["closed"]

    run(play)


def test_locks_and_queues_wake_jobs_in_turn(run: Run) -> None:
    async def take(queue: asyncio.Queue[int], lock: asyncio.Lock) -> int:
        async with lock:
            return await queue.get()

    async def play(pool: Pool) -> None:
        pool.reconfigure(workers=3)
        queue, lock = asyncio.Queue[int](), asyncio.Lock()
        jobs = [await pool.submit(take, queue, lock) for _ in range(3)]
        for number in range(3):
            queue.put_nowait(number)
        assert sorted([await job for job in jobs]) == [0, 1, 2]
        pool.reconfigure(workers=1)

    run(play)
