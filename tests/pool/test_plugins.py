"""Plugins: what they see, what they may do to an attempt, and what they may not."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import pytest

from mailrace.errors import MisuseError, RejectedError
from mailrace.events import Events
from mailrace.pool import (
    Job,
    JobCancelledError,
    JobState,
    JobTimeoutError,
    Plugin,
    PluginFailed,
    Pool,
    RetryPolicy,
    RetrySchedule,
    current_job,
)
from mailrace.pool.plugins import Plugins
from tests.support.clock import VirtualClock, settle

WAIT_S = 60.0
AnyJob = Job[Any]
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Recorder(Plugin):
    """Writes down every call, under a name of its own."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def before(self, job: AnyJob) -> None:
        self.log.append(f"{self.name} before")

    def after(self, job: AnyJob, value: object) -> None:
        self.log.append(f"{self.name} after {value}")

    def error(self, job: AnyJob, error: BaseException) -> None:
        self.log.append(f"{self.name} error {type(error).__name__}")

    async def around(self, job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        self.log.append(f"{self.name} in")
        try:
            return await proceed()
        finally:
            self.log.append(f"{self.name} out")


class Around(Plugin):
    """Wraps attempts with what a test says."""

    def __init__(self, wrap: Callable[[AnyJob, Callable[[], Awaitable[object]]], Any]) -> None:
        self._wrap = wrap

    async def around(self, job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        value: object = await self._wrap(job, proceed)
        return value


class Faulty(Plugin):
    """Raises where it must not."""

    def after(self, job: AnyJob, value: object) -> None:
        raise LookupError("after")

    def error(self, job: AnyJob, error: BaseException) -> None:
        raise LookupError("error")


class Veto(Plugin):
    """Refuses jobs of one key."""

    def before(self, job: AnyJob) -> None:
        if job.key == "bad":
            raise RejectedError("not this one")


@pytest.fixture
def log() -> list[str]:
    return []


async def double(number: int) -> int:
    return 2 * number


def half(number: int) -> float:
    return number / 2


async def fail() -> None:
    raise ValueError("no")


async def test_the_first_plugin_is_the_outermost(log: list[str]) -> None:
    async with Pool(plugins=[Recorder("A", log), Recorder("B", log)]) as pool:
        assert await (await pool.submit(double, 2)) == 4
    assert log == [
        "A before", "B before", "A in", "B in", "B out", "A out", "B after 4", "A after 4",
    ]  # fmt: skip


async def test_an_error_is_told_from_the_inside_out(log: list[str]) -> None:
    async with Pool(plugins=[Recorder("A", log), Recorder("B", log)]) as pool:
        with pytest.raises(ValueError, match="no"):
            await (await pool.submit(fail))
    assert log[-4:] == ["B out", "A out", "B error ValueError", "A error ValueError"]
    assert not [line for line in log if "after" in line]


async def test_every_attempt_has_its_own_calls(log: list[str]) -> None:
    clock = VirtualClock()
    async with Pool(plugins=[Recorder("A", log)], clock=clock) as pool:
        retry = RetryPolicy(delays=RetrySchedule(delays_s=(1.0, 1.0)))
        job = await pool.options(retry=retry).submit(fail)
        await clock.advance(2)
        assert (await job.outcome()).attempts == 3
    assert log == ["A before", "A in", "A out", "A error ValueError"] * 3


async def test_before_refuses_a_job_without_running_it(log: list[str]) -> None:
    ran: list[str] = []
    async with Pool(plugins=[Veto(), Recorder("inner", log)]) as pool:
        with pytest.raises(RejectedError, match="not this one"):
            await (await pool.options(key="bad").submit(ran.append, "bad"))
        await (await pool.options(key="good").submit(ran.append, "good"))
        numbers = pool.numbers()
    assert ran == ["good"]
    assert log[0] == "inner error RejectedError"
    assert "inner before" in log[1:]
    assert (numbers.ledger.failed, numbers.plugin_faults) == (1, 0)


@pytest.mark.parametrize("plugin", [Veto(), Around(lambda *_: 1 / 0)], ids=["before", "around"])
async def test_what_a_plugin_raises_follows_the_retry_policy(plugin: Plugin) -> None:
    clock = VirtualClock()
    async with Pool(plugins=[plugin], clock=clock) as pool:
        retry = RetryPolicy(delays=RetrySchedule(delays_s=(1.0,)), never_on=())
        job = await pool.options(retry=retry, key="bad").submit(double, 1)
        await clock.advance(1)
        outcome = await job.outcome()
    assert (outcome.state, outcome.attempts) == (JobState.FAILED, 2)


async def test_faults_in_after_and_error_are_counted_and_told_and_change_nothing(
    log: list[str],
) -> None:
    events = Events()
    told: list[PluginFailed] = []
    events.follow(PluginFailed, told.append)
    outer, inner = Recorder("outer", log), Recorder("inner", log)
    async with Pool(name="mails", plugins=[outer, Faulty(), inner], events=events) as pool:
        assert await (await pool.submit(double, 2)) == 4
        with pytest.raises(ValueError, match="no"):
            await (await pool.submit(fail))
        assert pool.numbers().plugin_faults == 2
    assert [(event.pool, str(event.error)) for event in told] == [
        ("mails", "after"),
        ("mails", "error"),
    ]
    assert [line for line in log if "after" in line] == ["inner after 4", "outer after 4"]
    assert [line for line in log if "error" in line] == [
        "inner error ValueError",
        "outer error ValueError",
    ]


async def test_around_wraps_every_kind_of_function(log: list[str]) -> None:
    threads: list[int] = []

    def in_thread() -> str:
        threads.append(threading.get_ident())
        log.append("inside")
        return tenant.get()

    async def named(job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        log.append(f"in {job.kind}")
        reset = tenant.set("somebody")
        try:
            return await proceed()
        finally:
            tenant.reset(reset)
            log.append(f"out {job.kind}")

    async def on_loop() -> str:
        await asyncio.sleep(0)
        log.append("inside")
        return tenant.get()

    async with Pool(workers=1, plugins=[Around(named)]) as pool:
        assert await (await pool.submit(on_loop)) == "somebody"
        assert await (await pool.submit(in_thread)) == "somebody"
        assert await (await pool.options(kind="loop").submit(in_thread)) == "somebody"
        assert await (await pool.options(kind="process").submit(os.getpid)) != os.getpid()
    assert threads[0] != threading.get_ident() == threads[1]
    assert log == [
        "in loop", "inside", "out loop",
        "in thread", "inside", "out thread",
        "in loop", "inside", "out loop",
        "in process", "out process",
    ]  # fmt: skip


async def test_around_may_answer_without_running_the_function() -> None:
    cache = {4: "four"}

    async def cached(job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        return cache.get(job.args[0]) or await proceed()

    async with Pool(plugins=[Around(cached)]) as pool:
        assert [value async for value in pool.map(str, (3, 4, 5))] == ["3", "four", "5"]


async def test_around_may_turn_an_error_into_a_result(log: list[str]) -> None:
    async def forgive(job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        try:
            return await proceed()
        except ValueError:
            return "forgiven"

    async with Pool(plugins=[Recorder("A", log), Around(forgive)]) as pool:
        job: AnyJob = await pool.submit(fail)
        assert await job == "forgiven"
        assert pool.ledger().completed == 1
    assert log[-1] == "A after forgiven"


async def test_plugins_see_the_context_variables_and_the_job(log: list[str]) -> None:
    class Contextual(Plugin):
        def note(self, job: AnyJob) -> None:
            assert current_job() is job
            log.append(tenant.get())

        def before(self, job: AnyJob) -> None:
            self.note(job)

        def after(self, job: AnyJob, value: object) -> None:
            self.note(job)

        async def around(self, job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
            self.note(job)
            await asyncio.sleep(0)
            self.note(job)
            return await proceed()

    async with Pool(plugins=[Contextual()]) as pool:
        reset = tenant.set("ann")
        job = await pool.submit(half, 2)
        tenant.reset(reset)
        assert await job == 1
    assert log == ["ann"] * 4


async def test_what_plugins_set_stays_with_the_job() -> None:
    class Setting(Plugin):
        def before(self, job: AnyJob) -> None:
            assert tenant.get() == "nobody"
            tenant.set(str(job.id))

    async def get() -> str:
        return tenant.get()

    async with Pool(workers=1, plugins=[Setting()]) as pool:
        jobs = [await pool.submit(get) for _ in range(3)]
        assert [await job for job in jobs] == ["1", "2", "3"]
    assert tenant.get() == "nobody"


def test_a_plugin_can_clean_up_in_its_context_when_the_loop_is_gone(log: list[str]) -> None:
    async def named(job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        reset = tenant.set("somebody")
        try:
            return await proceed()
        finally:
            tenant.reset(reset)
            log.append(tenant.get())

    async def leave() -> set[asyncio.Task[None]]:
        pool = await Pool(plugins=[Around(named)]).start()
        await pool.submit(asyncio.Event().wait)
        await settle()
        return asyncio.all_tasks()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it tells of the workers that nobody ended
    tasks = loop.run_until_complete(leave())
    loop.close()
    # As the collector does it, which begins with any coroutine of them: here with the outermost.
    while tasks:
        coroutine = tasks.pop().get_coro()
        assert coroutine is not None
        coroutine.close()
    assert log == ["nobody"]


async def test_a_cancel_goes_through(log: list[str]) -> None:
    async with Pool(plugins=[Recorder("A", log)]) as pool:
        job = await pool.submit(asyncio.Event().wait)
        await settle()
        assert job.cancel()
        with pytest.raises(JobCancelledError):
            await job
    assert log == ["A before", "A in", "A out", "A error CancelledError"]


async def test_a_timeout_covers_what_the_plugin_takes(log: list[str]) -> None:
    async def slow(job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        await asyncio.Event().wait()
        return await proceed()

    clock = VirtualClock()
    async with Pool(plugins=[Recorder("A", log), Around(slow)], clock=clock) as pool:
        job = await pool.options(timeout=2).submit(double, 2)
        await clock.advance(1.9)
        assert not job.done()
        await clock.advance(0.1)
        with pytest.raises(JobTimeoutError):
            await job
    assert log[-1] == "A error CancelledError"


async def test_a_thread_that_is_given_up_is_told_when_it_returns(log: list[str]) -> None:
    clock, release, told = VirtualClock(), threading.Event(), asyncio.Event()

    class Telling(Plugin):
        def after(self, job: AnyJob, value: object) -> None:
            told.set()

    async with Pool(plugins=[Telling(), Recorder("A", log)], clock=clock) as pool:
        job = await pool.options(timeout=2).submit(release.wait, WAIT_S)
        await clock.advance(2)
        with pytest.raises(JobTimeoutError):
            await job
        assert log == ["A before", "A in"]
        release.set()
        async with asyncio.timeout(WAIT_S):
            await told.wait()
    assert log[2:] == ["A out", "A after True"]
    assert pool.numbers().late == 1


async def test_only_what_is_overridden_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("nobody has overridden it")

    class Quiet(Plugin):
        pass

    for name in ("before", "after", "error", "around"):
        monkeypatch.setattr(Plugin, name, forbidden)
    async with Pool(plugins=[Quiet()]) as pool:
        assert await (await pool.submit(double, 2)) == 4
        await (await pool.submit(fail)).outcome()
        assert pool.numbers().plugin_faults == 0


async def test_without_plugins_nothing_of_them_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plugins cost where there are none: nothing, by way of not being there."""
    calls: list[object] = []
    monkeypatch.setattr(Plugins, "run", lambda *_: calls.append(None))
    async with Pool() as pool:
        assert pool.engine.plain
        assert await (await pool.submit(double, 2)) == 4
        assert await (await pool.submit(half, 2)) == 1
    assert calls == []
    async with Pool(plugins=[Plugin()]) as pool:
        assert not pool.engine.plain


@pytest.mark.parametrize("wrong", [["log"], [Recorder], [None]])
def test_what_is_no_plugin_is_refused(wrong: Iterable[Any]) -> None:
    with pytest.raises(MisuseError, match=r"derived from Plugin"):
        Pool(plugins=wrong)


async def waits(*_: object) -> None:
    """Somebody's hook that cannot be called without waiting."""


def yields(*_: object) -> Iterable[None]:
    yield


@pytest.mark.parametrize("hook", [waits, yields])
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("before", "write def before(self, job);"),
        ("after", "write def after(self, job, value);"),
        ("error", "write def error(self, job, error);"),
    ],
)
def test_a_hook_that_would_never_run_is_refused(
    name: str, written: str, hook: Callable[..., Any]
) -> None:
    wrong = type("Wrong", (Plugin,), {name: hook})
    with pytest.raises(MisuseError, match=f"Wrong.{name} is no plain method") as raised:
        Pool(plugins=[wrong()])
    assert raised.value.hint.startswith(written)


def test_a_wrapper_that_cannot_be_awaited_is_refused() -> None:
    wrong = type("Wrong", (Plugin,), {"around": lambda _self, _job, proceed: proceed()})
    with pytest.raises(MisuseError, match=r"Wrong.around is no coroutine.*write async def around"):
        Pool(plugins=[wrong()])
