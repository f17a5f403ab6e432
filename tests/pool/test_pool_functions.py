"""What a function may be, what goes with it, and what is said about wrong ones."""

import asyncio
import functools
import threading
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from mailrace.errors import MisuseError
from mailrace.pool import (
    Job,
    JobOptions,
    Pool,
    PoolSettings,
    current_job,
)

WAIT_S = 60.0
TENANT: ContextVar[str] = ContextVar("TENANT", default="nobody")


# Contexts.


async def test_context_variables_travel_with_the_job_and_stay_its_own() -> None:
    async def on_loop(name: str) -> str:
        before = TENANT.get()
        TENANT.set(name)
        await asyncio.sleep(0)
        assert TENANT.get() == name
        await asyncio.create_task(asyncio.sleep(0))
        return before

    def in_thread() -> str:
        return TENANT.get()

    async with Pool(workers=2) as pool:
        TENANT.set("ann")
        first = await pool.submit(on_loop, "x")
        second = await pool.submit(in_thread)
        TENANT.set("bob")
        third = await pool.submit(on_loop, "y")
        assert [await job for job in (first, second, third)] == ["ann", "ann", "bob"]
        assert TENANT.get() == "bob"


async def test_tasks_and_threads_of_a_job_know_the_job() -> None:
    async def whose() -> Job[Any]:
        return current_job()

    async def outer() -> list[Job[Any]]:
        return [
            await asyncio.create_task(whose()),
            await asyncio.to_thread(current_job),
            current_job(),
        ]

    async with Pool(workers=1) as pool:
        job = await pool.options(key="ann", metadata={"n": 1}).submit(outer)
        assert await job == [job, job, job]
        assert (job.key, job.metadata, job.attempts) == ("ann", {"n": 1}, 1)


# What a function may be.


class Doubler:
    """Things that can be called."""

    async def on_loop(self, number: int) -> int:
        assert threading.current_thread() is threading.main_thread()
        return 2 * number

    def in_thread(self, number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return 2 * number

    def __call__(self, number: int) -> int:
        return self.in_thread(number)


class AsyncDoubler:
    """One that is called on the loop."""

    async def __call__(self, number: int) -> int:
        return await Doubler().on_loop(number)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (Doubler().on_loop, "loop"),
        (Doubler().in_thread, "thread"),
        (Doubler(), "thread"),
        (AsyncDoubler(), "loop"),
        (functools.partial(Doubler().on_loop), "loop"),
        (functools.partial(Doubler().in_thread), "thread"),
        (functools.partial(functools.partial(Doubler().on_loop)), "loop"),
        (lambda number: 2 * number, "thread"),
        ((2).__mul__, "thread"),
    ],
)
async def test_functions_of_every_kind_run_where_they_belong(function: Any, kind: str) -> None:
    async with Pool(workers=1) as pool:
        job = await pool.submit(function, 21)
        assert await job == 42
        assert job.kind == kind
        assert job.name


@pytest.mark.parametrize("function", [dict, len, list, sorted])
async def test_builtins_and_classes_run_in_threads(function: Any) -> None:
    async with Pool(workers=1) as pool:
        job = await pool.submit(function, ())
        assert await job == function(())
        assert job.kind == "thread"


async def test_an_ordinary_function_runs_on_the_loop_only_if_asked_to() -> None:
    async with Pool(workers=1) as pool:
        on_loop = pool.options(kind="loop")
        assert await (await on_loop.submit(threading.current_thread)) is threading.main_thread()

        def bring() -> Any:
            return asyncio.sleep(0, "brought")

        assert await (await on_loop.submit(bring)) == "brought"


async def test_a_function_that_returns_a_coroutine_in_a_thread_is_told_where_to_go() -> None:
    async with Pool(workers=1) as pool:
        job = await pool.submit(lambda: asyncio.sleep(0))
        with pytest.raises(MisuseError, match=r'returned a coroutine in a thread.*kind="loop"'):
            await job


async def test_a_coroutine_object_is_refused_in_place_of_its_function() -> None:
    coroutine: Any = asyncio.sleep(0)
    async with Pool(workers=1) as pool:
        with pytest.raises(MisuseError, match=r"only once.*submit\(fetch, url\)"):
            await pool.submit(coroutine)
        with pytest.raises(MisuseError, match="only once"):
            pool.submit_nowait(coroutine)
        with pytest.raises(MisuseError, match="only once"):
            await asyncio.to_thread(pool.submit_threadsafe, coroutine)
        assert pool.ledger().accepted == 0
    coroutine.close()


@pytest.mark.parametrize("function", [None, 7, "print", [print]])
async def test_what_cannot_be_called_is_refused(function: Any) -> None:
    async with Pool(workers=1) as pool:
        with pytest.raises(MisuseError, match=r"function is .*can be called"):
            await pool.submit(function)


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_a_coroutine_function_is_refused_away_from_the_loop(kind: Any) -> None:
    async with Pool(workers=1) as pool:
        with pytest.raises(MisuseError, match=f"kind is {kind}.*leave kind out"):
            await pool.options(kind=kind).submit(asyncio.sleep, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers_min", 0),
        ("workers_max", -1),
        ("queue_size", 0),
        ("queue_size", -5),
        ("queue_size", True),
        ("queue_size", 1.5),
        ("queue_bytes", 0),
        ("abandoned_max", 0),
        ("recycle_after", -1),
        ("dead_letters", -1),
        ("overflow_size", -1),
        ("cancel_grace", 0),
        ("cancel_grace", float("nan")),
        ("idle_timeout", -1.0),
        ("overflow", "explode"),
        ("scale_up_at", 0),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_to_give(name: str, value: Any) -> None:
    with pytest.raises(MisuseError) as raised:
        PoolSettings(**{name: value})
    assert raised.value.problem == f"{name} is {value!r}"
    assert raised.value.hint.startswith("give ")
    with pytest.raises(MisuseError, match=f"^{name} is "):
        Pool(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "fibre"),
        ("priority", "urgent"),
        ("priority", 10),
        ("timeout", 0),
        ("deadline", -1),
        ("expires", "soon"),
        ("wait", False),
        ("cost", 0),
        ("cost", 1.5),
        ("size_bytes", -1),
        ("retry", 3),
        ("key", []),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_what_to_give(name: str, value: Any) -> None:
    with pytest.raises(MisuseError) as raised:
        JobOptions(**{name: value})
    assert name in raised.value.problem
    assert str(value) in raised.value.problem
    assert raised.value.hint.startswith("give ")


async def test_names_that_nobody_knows_are_answered_with_the_nearest() -> None:
    setting: dict[str, Any] = {"queue_sise": 3}
    option: dict[str, Any] = {"timout": 3}
    with pytest.raises(MisuseError, match=r"queue_sise.*did you mean queue_size"):
        Pool(**setting)
    async with Pool(workers=1) as pool:
        with pytest.raises(MisuseError, match=r"timout.*did you mean timeout"):
            pool.options(**option)
        with pytest.raises(MisuseError, match=r"queue_sise.*did you mean queue_size"):
            pool.reconfigure(**setting)
        assert pool.settings.queue_size == 100


def generator(*_: object) -> Iterator[int]:
    yield 1


async def async_generator(*_: object) -> AsyncIterator[int]:
    yield 1


class Generating:
    def __call__(self) -> Iterator[int]:
        yield 1

    async def method(self) -> AsyncIterator[int]:
        yield 1


@types.coroutine
def awaitable_generator() -> Generator[Any, None, str]:
    yield
    return "awaited"


@pytest.mark.parametrize("kind", [None, "loop", "thread", "process"])
@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        functools.partial(functools.partial(generator, 1), 2),
        functools.partial(async_generator, 1),
        Generating(),
        Generating().method,
        functools.partial(Generating()),
    ],
    ids=str,
)
async def test_a_generator_function_is_refused_with_advice(function: Any, kind: Any) -> None:
    """Its call would complete at once, with a generator that nobody uses."""
    async with Pool(workers=1) as pool:
        with pytest.raises(MisuseError, match=r"is a generator function.*iterate inside"):
            await pool.options(kind=kind).submit(function)
        assert pool.ledger().accepted == 0


async def test_a_generator_that_is_a_coroutine_is_none() -> None:
    async with Pool(workers=1) as pool:
        job = await pool.options(kind="loop").submit(awaitable_generator)
        assert await job == "awaited"


def takes_url(url: str) -> str:
    return url


async def takes_url_too(url: str) -> str:
    return url


@pytest.mark.parametrize("function", [takes_url, takes_url_too])
async def test_an_option_among_the_arguments_is_told_where_it_belongs(
    function: Callable[..., Any],
) -> None:
    async with Pool(workers=1) as pool:
        with pytest.raises(TypeError, match="unexpected keyword argument") as raised:
            await (await pool.submit(function, "u", timeout=5))
        assert raised.value.__notes__ == [
            "timeout is an option: pool.options(timeout=...).submit(...)"
        ]
        with pytest.raises(TypeError) as raised:
            await (await pool.submit(function, "u", url="v", other=5))
        assert not hasattr(raised.value, "__notes__")


async def test_an_argument_that_the_function_takes_is_not_mistaken_for_an_option() -> None:
    async def fetch(*, timeout: float) -> None:
        raise TypeError(f"{timeout} is too short")

    async with Pool(workers=1) as pool:
        with pytest.raises(TypeError) as raised:
            await (await pool.submit(fetch, timeout=5))
        assert not hasattr(raised.value, "__notes__")


async def test_a_note_is_made_once_for_an_error_that_is_raised_again() -> None:
    error = TypeError("an unexpected keyword argument")

    async def fetch(**_: object) -> None:
        raise error

    async with Pool(workers=1) as pool:
        for _ in range(3):
            await (await pool.submit(fetch, timeout=5)).outcome()
    assert len(error.__notes__) == 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("drop_oldest", "drop oldest"),
        ("drop_lowest", "drop lowest"),
        ("caller-runs", "caller runs"),
        ("WAIT", "wait"),
        ("spil", "spill"),
    ],
)
def test_an_overflow_policy_that_is_nearly_one_is_answered_with_it(
    written: Any, meant: str
) -> None:
    with pytest.raises(MisuseError, match=f'did you mean "{meant}"'):
        PoolSettings(overflow=written)
