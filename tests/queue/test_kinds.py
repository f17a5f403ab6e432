"""The book of handlers: what is registered, how, and what is refused in one clear line."""

import datetime as dt
from functools import partial
from typing import Any

import pytest

from mailrace.errors import MisuseError
from mailrace.pool import Backoff, BreakerSettings, RetryPolicy, RetrySchedule
from mailrace.queue.kinds import Handlers, Kind


async def coroutine(payload: dict[str, int]) -> None: ...


def ordinary(payload: int) -> None: ...


async def informed(payload: str, info: Any) -> None: ...


async def defaulted(
    payload: str, more: int = 1, *rest: int, word: str = "", **others: int
) -> None: ...


class Sender:
    """A handler with a state of its own."""

    async def __call__(self, payload: list[int]) -> None: ...

    async def method(self, payload: float) -> None: ...

    @staticmethod
    def static(payload: bool) -> None: ...


def registered(function: Any, **choices: Any) -> Kind:
    return Handlers().add("kind", function, **choices)


@pytest.mark.parametrize(
    ("function", "annotation", "where", "wants_info", "plain"),
    [
        (coroutine, dict[str, int], "loop", False, True),
        (ordinary, int, "thread", False, False),
        (informed, str, "loop", True, False),
        (defaulted, str, "loop", False, True),
        (Sender(), list[int], "loop", False, True),
        (Sender().method, float, "loop", False, True),
        (Sender.static, bool, "thread", False, False),
        (partial(informed, info=None), str, "loop", False, True),
        (partial(ordinary), int, "thread", False, False),
        (lambda payload: None, Any, "thread", False, False),
        (print, Any, "thread", False, False),
    ],
)
def test_a_function_says_how_it_is_to_be_called(
    function: Any, annotation: object, where: str, wants_info: bool, *, plain: bool
) -> None:
    if function is print:
        with pytest.raises(MisuseError, match="takes nothing"):
            registered(function)
        return
    kind = registered(function)
    assert (kind.payload.annotation, kind.where) == (annotation, where)
    assert (kind.wants_info, kind.plain) == (wants_info, plain)


def test_the_decorator_gives_the_function_back_and_the_book_knows_it() -> None:
    handlers = Handlers()

    @handlers.register("invoice", queue="billing", timeout=dt.timedelta(minutes=1), chunk=5)
    async def invoice(payloads: list[int]) -> list[None]:
        return [None for _ in payloads]

    kind = handlers.of(invoice)
    assert (kind.name, kind.queue, kind.timeout_s, kind.chunk) == ("invoice", "billing", 60.0, 5)
    assert kind.payload.annotation is int
    assert not kind.plain
    assert "invoice" in handlers
    assert "other" not in handlers
    assert handlers.get("other") is None
    assert list(handlers) == [kind]


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (None, RetrySchedule()),
        ("none", RetrySchedule(())),
        ("1m,5m", RetrySchedule((60.0, 300.0))),
        (RetrySchedule((1.0,)), RetrySchedule((1.0,))),
        (Backoff(attempts=5), Backoff(attempts=5)),
        (RetryPolicy(delays=Backoff(attempts=7)), Backoff(attempts=7)),
    ],
)
def test_retries_may_be_said_in_several_ways(retry: Any, delays: object) -> None:
    assert registered(coroutine, retry=retry).retry.delays == delays


def no_payload() -> None: ...


def only_words(*, payload: int) -> None: ...


def unknown_type(payload: object) -> None: ...


unknown_type.__annotations__["payload"] = "Nowhere"


async def no_list(payloads: int) -> None: ...


def no_json(payload: complex) -> None: ...


@pytest.mark.parametrize(
    ("function", "choices", "problem"),
    [
        ("text", {}, "the handler of 'kind' is 'text'"),
        (None, {}, "the handler of 'kind' is None"),
        (no_payload, {}, "takes nothing"),
        (only_words, {}, "takes nothing"),
        (unknown_type, {}, "annotations of the handler of 'kind' cannot be read"),
        (no_json, {}, "complex"),
        (no_list, {"chunk": 5}, "takes chunks and its payload is"),
        (coroutine, {"chunk": 0}, "chunk of 'kind' is 0"),
        (coroutine, {"chunk": 101}, "chunk of 'kind' is 101"),
        (coroutine, {"where": "thread"}, "is a coroutine function"),
        (Sender(), {"where": "process"}, "is a coroutine function"),
        (coroutine, {"where": "moon"}, "where of 'kind' is 'moon'"),
        (coroutine, {"timeout": 0}, "timeout"),
        (coroutine, {"timeout": -1}, "timeout"),
        (coroutine, {"timeout": "1m"}, "timeout"),
        (coroutine, {"retry": "soon"}, "'soon' is not a list of delays"),
        (coroutine, {"retry": 5}, "delays is 5"),
        (coroutine, {"queue": ""}, "queue"),
        (coroutine, {"queue": "a\nb"}, "queue"),
        (coroutine, {"breaker": "yes"}, "breaker"),
        (coroutine, {"breaker": BreakerSettings}, "breaker"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    function: Any, choices: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MisuseError) as caught:
        registered(function, **choices)
    assert problem in caught.value.problem
    assert "\n" not in caught.value.problem
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", None, 5, "a\nb", "x" * 201])
def test_a_kind_is_one_line_of_text(name: Any) -> None:
    with pytest.raises(MisuseError, match="kind is"):
        Handlers().add(name, coroutine)


def test_a_kind_has_one_handler() -> None:
    handlers = Handlers()
    handlers.add("kind", coroutine)
    with pytest.raises(MisuseError, match="there is a handler for 'kind' already"):
        handlers.add("kind", ordinary)
    assert handlers.of(coroutine).where == "loop"


def test_a_function_that_nobody_registered_is_no_handler() -> None:
    with pytest.raises(MisuseError, match="'ordinary' is no handler"):
        Handlers().of(ordinary)
