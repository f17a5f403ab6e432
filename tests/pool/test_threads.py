"""Threads that run functions for the loop, and results on their way to it."""

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import UnavailableError
from mailrace.pool.threads import Done, Returns, WorkerThread

WAIT_S = 30.0


class Tool:
    """Something that functions get and give, and that can be watched until it is gone."""


class Loop:
    """A loop whose turns come when a test wants them, even in the middle of a `post`."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.wake_ups = 0
        self.while_waking: Callable[[], None] = lambda: None

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.while_waking()
        self.wake_ups += 1
        self.due.append(callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class Returned(deque[tuple[Done, object, BaseException | None]]):
    """Results among which others come in between at every step."""

    def __init__(self, between: Callable[[], None]) -> None:
        super().__init__()
        self._between = between

    def append(self, item: tuple[Done, object, BaseException | None]) -> None:
        self._between()
        super().append(item)
        self._between()

    def popleft(self) -> tuple[Done, object, BaseException | None]:
        self._between()
        item = super().popleft()
        self._between()
        return item

    def __len__(self) -> int:
        self._between()
        length = super().__len__()
        self._between()
        return length


def returns_to(loop: Any) -> Returns:
    return Returns(loop)


@pytest.fixture
def returns() -> Iterator[Returns]:
    loop = asyncio.new_event_loop()
    yield Returns(loop)
    loop.close()


@pytest.fixture
def nervous() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def result_of(
    thread: WorkerThread, function: Callable[..., object], *args: object, **kwargs: object
) -> asyncio.Future[object]:
    future = asyncio.get_running_loop().create_future()

    def done(value: object, error: BaseException | None) -> None:
        assert not thread.busy
        if error is None:
            future.set_result(value)
        else:
            future.set_result(error)

    thread.start(function, args, kwargs, contextvars.copy_context(), done)
    return future


async def make(name: str = "worker") -> WorkerThread:
    return WorkerThread(name, Returns(asyncio.get_running_loop()))


def end(*threads: WorkerThread) -> None:
    for thread in threads:
        thread.close()
    assert all(thread.join(WAIT_S) for thread in threads)


def raises(error: BaseException) -> None:
    raise error


async def test_a_function_runs_in_the_thread_and_its_result_comes_back_in_the_loop() -> None:
    thread = await make("mail-1")
    here = threading.get_ident()
    came_back_in: list[int] = []

    def function(first: int, *, second: int) -> tuple[str, int]:
        return threading.current_thread().name, first + second

    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def done(value: object, error: BaseException | None) -> None:
        came_back_in.append(threading.get_ident())
        future.set_result((value, error))

    thread.start(function, (1,), {"second": 2}, contextvars.copy_context(), done)
    assert await future == (("mail-1", 3), None)
    assert came_back_in == [here]
    end(thread)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]
)
async def test_whatever_a_function_raises_is_its_error_and_the_thread_goes_on(
    error: BaseException,
) -> None:
    thread = await make()
    assert await result_of(thread, raises, error) is error
    assert await result_of(thread, len, "abc") == 3
    end(thread)


async def test_arguments_that_do_not_fit_are_an_error_of_the_call() -> None:
    thread = await make()
    assert isinstance(await result_of(thread, len), TypeError)
    end(thread)


async def test_a_function_runs_in_its_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    thread = await make()
    assert await result_of(thread, variable.get) == "mine"
    await result_of(thread, variable.set, "theirs")
    assert variable.get() == "mine"
    end(thread)


async def test_a_thread_is_busy_from_the_call_to_the_delivery_of_its_result() -> None:
    thread = await make()
    began, go_on = threading.Event(), threading.Event()
    busy = [thread.busy]

    def function() -> None:
        began.set()
        assert go_on.wait(WAIT_S)

    future = result_of(thread, function)
    busy.append(thread.busy)
    assert await asyncio.to_thread(began.wait, WAIT_S)
    busy.append(thread.busy)
    go_on.set()
    await future
    assert [*busy, thread.busy] == [False, True, True, False]
    end(thread)


async def test_a_thread_that_has_a_call_takes_no_other() -> None:
    thread = await make()
    go_on = threading.Event()
    future = result_of(thread, go_on.wait, WAIT_S)
    with pytest.raises(AssertionError, match="has a call"):
        result_of(thread, len, "abc")
    go_on.set()
    assert await future
    end(thread)


async def test_the_next_call_can_be_handed_over_by_the_result_of_the_last() -> None:
    thread = await make()
    values: list[object] = []
    finished = asyncio.Event()

    def done(value: object, error: BaseException | None) -> None:
        values.append(value)
        if len(values) == 100:
            finished.set()
        else:
            thread.start(len, (range(len(values)),), {}, contextvars.copy_context(), done)

    thread.start(len, ((),), {}, contextvars.copy_context(), done)
    async with asyncio.timeout(WAIT_S):
        await finished.wait()
    assert values == list(range(100))
    end(thread)


async def test_a_closed_thread_finishes_its_call_and_ends() -> None:
    thread = await make()
    go_on = threading.Event()
    future = result_of(thread, go_on.wait, WAIT_S)
    thread.close()
    thread.close()
    assert not thread.join(0.0)
    go_on.set()
    assert await future is True
    assert thread.join(WAIT_S)
    with pytest.raises(AssertionError, match="closed"):
        result_of(thread, len, "abc")


@pytest.mark.parametrize("fails", [False, True])
async def test_an_idle_thread_holds_nothing_of_its_last_call(fails: bool) -> None:
    thread = await make()
    tools = [Tool(), Tool(), Tool()]
    watched = [weakref.ref(tool) for tool in tools]

    def function(given: Tool, *, kept: list[Tool]) -> Tool:
        result = kept.pop()
        if fails:
            raise ValueError
        return result

    context = contextvars.copy_context()
    context.run(contextvars.ContextVar[Tool]("tool").set, tools.pop())
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(value: object, error: BaseException | None) -> None:
        future.set_result(None)

    gc.disable()
    try:
        thread.start(function, (tools.pop(),), {"kept": tools}, context, done)
        del context, function, done
        await future
        # The thread may still be on its way out of the call.
        await result_of(thread, len, "abc")
        assert [watch() for watch in watched] == [None, None, None]
    finally:
        gc.enable()
    end(thread)


async def test_an_error_that_is_kept_holds_nothing_of_the_call_but_what_its_function_had() -> None:
    thread = await make()
    tool = Tool()
    context = contextvars.copy_context()
    context.run(contextvars.ContextVar[Tool]("tool").set, tool)
    watched = weakref.ref(tool)
    future: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    thread.start(
        raises,
        (ValueError("no"),),
        {},
        context,
        lambda value, error: future.set_result(error),
    )
    del context, tool
    error = await future
    await result_of(thread, len, "abc")
    assert isinstance(error, ValueError)
    assert watched() is None
    end(thread)


async def test_many_results_share_a_wake_up() -> None:
    loop = Loop()
    returns = returns_to(loop)
    came: list[object] = []
    for number in range(50):
        returns.post(lambda value, error: came.append(value), number, None)
    assert loop.wake_ups == 1
    loop.turn()
    assert came == list(range(50))
    returns.post(lambda value, error: came.append(value), 50, None)
    assert loop.wake_ups == 2
    loop.turn()
    assert came[-1] == 50


def test_a_result_that_comes_while_another_thread_wakes_the_loop_is_delivered() -> None:
    loop = Loop()
    returns = returns_to(loop)
    came: list[object] = []

    def done(value: object, error: BaseException | None) -> None:
        came.append(value)

    def second() -> None:
        loop.while_waking = lambda: None
        returns.post(done, "second", None)

    loop.while_waking = second
    returns.post(done, "first", None)
    loop.turn()
    assert came == ["first", "second"]


def test_a_result_that_comes_during_the_delivery_has_a_wake_up_of_its_own() -> None:
    loop = Loop()
    returns = returns_to(loop)
    came: list[object] = []

    def again(value: object, error: BaseException | None) -> None:
        came.append(value)
        returns.post(again, len(came), None)

    returns.post(again, 0, None)
    for turn in range(1, 5):
        loop.turn()
        assert came == list(range(turn)), "one turn, one result: the loop has other things to do"


def test_an_error_of_one_delivery_keeps_the_others_from_nothing() -> None:
    loop = Loop()
    returns = returns_to(loop)
    came: list[object] = []

    def fails(value: object, error: BaseException | None) -> None:
        raise ValueError("no")

    returns.post(fails, 0, None)
    returns.post(lambda value, error: came.append(value), 1, None)
    with pytest.raises(ValueError, match="no"):
        loop.turn()
    loop.turn()
    assert came == [1]


@given(
    posts=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["nothing", "post", "turn"]), max_size=40),
)
def test_no_order_of_steps_loses_a_wake_up(posts: int, steps: list[str]) -> None:
    loop = Loop()
    returns = returns_to(loop)
    posted, came = 0, 0
    in_turn = False

    def done(value: object, error: BaseException | None) -> None:
        nonlocal came
        came += 1

    def post() -> None:
        nonlocal posted
        posted += 1
        returns.post(done, None, None)

    def turn() -> None:
        nonlocal in_turn
        if not in_turn:  # the loop is one thread
            in_turn = True
            loop.turn()
            in_turn = False

    def between() -> None:
        {"nothing": lambda: None, "post": post, "turn": turn}[steps.pop() if steps else "nothing"]()

    returns._returned = Returned(between)
    loop.while_waking = between
    for _ in range(posts):
        post()
    while loop.due:
        turn()
    assert came == posted


@pytest.mark.usefixtures("nervous")
async def test_threads_that_post_at_the_same_time_lose_no_result() -> None:
    loop = asyncio.get_running_loop()
    returns = Returns(loop)
    rounds, threads = 300, 6
    came = 0
    complete = asyncio.Event()
    barrier = threading.Barrier(threads)
    next_round = threading.Semaphore(0)

    def done(value: object, error: BaseException | None) -> None:
        nonlocal came
        came += 1
        if came % threads == 0:
            complete.set()

    def post() -> None:
        for _ in range(rounds):
            assert next_round.acquire(timeout=WAIT_S)
            barrier.wait(WAIT_S)
            returns.post(done, None, None)

    posting = [threading.Thread(target=post) for _ in range(threads)]
    for thread in posting:
        thread.start()
    for _ in range(rounds):
        complete.clear()
        next_round.release(threads)
        async with asyncio.timeout(WAIT_S):
            await complete.wait()
    for thread in posting:
        thread.join(WAIT_S)
    assert came == rounds * threads


@pytest.mark.usefixtures("nervous")
async def test_fifty_threads_that_never_rest_lose_no_result() -> None:
    returns = Returns(asyncio.get_running_loop())
    threads = [WorkerThread(f"worker-{number}", returns) for number in range(50)]

    async def work(thread: WorkerThread, number: int) -> None:
        for turn in range(40):
            assert await result_of(thread, max, number, turn) == max(number, turn)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(work(thread, n) for n, thread in enumerate(threads)))
    end(*threads)


def test_what_comes_after_the_loop_was_closed_is_dropped_and_the_thread_ends() -> None:
    loop = asyncio.new_event_loop()
    returns = Returns(loop)
    thread = WorkerThread("worker", returns)
    go_on = threading.Event()
    came: list[object] = []

    def function() -> Tool:
        assert go_on.wait(WAIT_S)
        tool = Tool()
        watched.append(weakref.ref(tool))
        return tool

    watched: list[weakref.ref[Tool]] = []
    done: Done = lambda value, error: came.append(value)  # noqa: E731 - typed as a whole
    thread.start(function, (), {}, contextvars.copy_context(), done)
    loop.close()
    go_on.set()
    end(thread)
    returns.post(done, Tool(), None)
    assert (came, watched[0]()) == ([], None)


def test_a_machine_without_threads_to_spare_is_unavailable(
    returns: Returns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(UnavailableError, match="thread worker cannot be started"):
        WorkerThread("worker", returns)


def test_a_thread_does_not_hold_up_the_end_of_the_program(returns: Returns) -> None:
    thread = WorkerThread("stuck", returns)
    running = [each for each in threading.enumerate() if each.name == "stuck"]
    assert [each.daemon for each in running] == [True]
    end(thread)
