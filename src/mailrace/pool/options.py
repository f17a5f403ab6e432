"""What can be asked for a job: the settings that one submit may differ in from another."""

import functools
import inspect
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any, Final, Literal, TypedDict

from mailrace.errors import MisuseError
from mailrace.pool.retry import Backoff, RetryPolicy, RetrySchedule

PRIORITIES: Final = {"high": 1, "normal": 0, "low": -1}
_PRIORITY_MAX = 9
_GENERATORS: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class _Keys(Enum):
    ALL = "all"

    def __repr__(self) -> str:
        return "ALL_KEYS"


ALL_KEYS: Final = _Keys.ALL
"""Where a key can be given and none is: `None` is the key of jobs without one."""

Duration = timedelta | float
"""A time span: a `timedelta`, or seconds."""


class Kind(StrEnum):
    """Where a function runs."""

    LOOP = "loop"
    THREAD = "thread"
    PROCESS = "process"


def seconds(value: Duration, name: str) -> float:
    """A duration as seconds.

    Raises:
        MisuseError: It is not positive and finite; `name` is the setting that the error names.
    """
    span_s: object = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(span_s, bool) or not isinstance(span_s, int | float) or not 0 < span_s < 1e10:
        raise MisuseError(
            f"{name} is {value!r}", hint="give a time span above zero: seconds or a timedelta"
        )
    return float(span_s)


def priority_of(value: int | str) -> int:
    """A priority as a number: the larger, the sooner.

    Raises:
        MisuseError: It is none.
    """
    level = PRIORITIES.get(value) if isinstance(value, str) else value
    if level is None or isinstance(level, bool) or not isinstance(level, int):
        raise MisuseError(
            f"priority is {value!r}", hint="give high, normal, low or a number from -9 to 9"
        )
    if not -_PRIORITY_MAX <= level <= _PRIORITY_MAX:
        raise MisuseError(f"priority is {level}", hint="give a number from -9 to 9")
    return level


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How one job is to be treated; every field has the default that fits most.

    Attributes:
        kind: Where the function runs: `loop` (coroutine functions, the default for them),
            `thread` (the default for ordinary functions) or `process` (CPU work; the function and
            its arguments have to be picklable). An ordinary function runs on the loop only if
            asked to.
        priority: `high`, `normal`, `low`, or a number from -9 to 9; the larger goes first.
        timeout: What an attempt may take, from the start of the function. A coroutine is
            cancelled, a process killed, a thread's caller freed.
        deadline: What all attempts together may take, from the submit, waiting included.
        expires: How long the job may wait for its first start.
        key: What the job is about, for example a tenant or a host: limits, breakers and fair
            turns go by key, and jobs can be cancelled by it.
        cost: How many slots of the rate limits it takes, for example its recipients.
        size_bytes: What it occupies while it waits, for the bound by bytes; if not given, the
            sizes of its arguments that are bytes or text.
        retry: When a failed attempt is followed by another one, as a policy or as the delays of
            one; `None`: never.
        wait: How long a submit may wait for room; `None`: as long as it takes.
        metadata: Whatever the program wants to find in the outcome.
        name: What outcomes and errors call the job; if not given, the function's name.
    """

    kind: Kind | Literal["loop", "thread", "process"] | None = None
    priority: int | Literal["high", "normal", "low"] = 0
    timeout: Duration | None = None
    deadline: Duration | None = None
    expires: Duration | None = None
    key: Hashable = None
    cost: int = 1
    size_bytes: int | None = None
    retry: RetryPolicy | Backoff | RetrySchedule | None = None
    wait: Duration | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    def __post_init__(self) -> None:
        priority_of(self.priority)
        for name in ("timeout", "deadline", "expires", "wait"):
            value = getattr(self, name)
            if value is not None:
                seconds(value, name)
        if self.kind is not None and self.kind not in tuple(Kind):
            raise MisuseError(f"kind is {self.kind!r}", hint="give loop, thread or process")
        cost: object = self.cost
        if isinstance(cost, bool) or not isinstance(cost, int) or cost < 1:
            raise MisuseError(f"cost is {cost!r}", hint="give a whole number of at least 1")
        size_bytes: object = self.size_bytes
        if size_bytes is not None and (type(size_bytes) is not int or size_bytes < 0):
            raise MisuseError(
                f"size_bytes is {size_bytes!r}", hint="give a whole number of at least 0"
            )
        if not isinstance(self.metadata, Mapping):
            raise MisuseError(f"metadata is {self.metadata!r}", hint="give a mapping")
        if self.name is not None and not isinstance(self.name, str):
            raise MisuseError(f"name is {self.name!r}", hint="give text")
        if self.retry is not None and not isinstance(
            self.retry, RetryPolicy | Backoff | RetrySchedule
        ):
            raise MisuseError(
                f"retry is {self.retry!r}",
                hint="give a RetryPolicy, a Backoff, a RetrySchedule or None",
            )
        try:
            hash(self.key)
        except TypeError:
            raise MisuseError(
                f"key {self.key!r} cannot be a key", hint="give text, a number or a tuple of such"
            ) from None


class OptionChanges(TypedDict, total=False):
    """The fields of `JobOptions`, as keyword arguments."""

    kind: Kind | Literal["loop", "thread", "process"] | None
    priority: int | Literal["high", "normal", "low"]
    timeout: Duration | None
    deadline: Duration | None
    expires: Duration | None
    key: Hashable
    cost: int
    size_bytes: int | None
    retry: RetryPolicy | Backoff | RetrySchedule | None
    wait: Duration | None
    metadata: Mapping[str, Any]
    name: str | None


class Terms:
    """Options made ready for the hot path: numbers instead of words, one attribute each."""

    __slots__ = (
        "cost",
        "deadline_s",
        "expires_s",
        "key",
        "kind",
        "level",
        "options",
        "perishable",
        "retry",
        "size_bytes",
        "timed",
        "timeout_s",
        "wait_s",
    )

    def __init__(self, options: JobOptions) -> None:
        self.options = options
        self.kind = None if options.kind is None else Kind(options.kind)
        self.level = priority_of(options.priority)
        self.timeout_s = _optional_s(options.timeout, "timeout")
        self.deadline_s = _optional_s(options.deadline, "deadline")
        self.expires_s = _optional_s(options.expires, "expires")
        self.wait_s = _optional_s(options.wait, "wait")
        self.key = options.key
        self.cost = options.cost
        self.size_bytes = options.size_bytes
        self.retry = _policy(options.retry)
        # What most jobs have none of, in one look.
        self.timed = self.timeout_s is not None or self.deadline_s is not None
        self.perishable = self.deadline_s is not None or self.expires_s is not None


def _policy(retry: RetryPolicy | Backoff | RetrySchedule | None) -> RetryPolicy | None:
    if retry is None or isinstance(retry, RetryPolicy):
        return retry
    return RetryPolicy(delays=retry)


def _optional_s(value: Duration | None, name: str) -> float | None:
    return None if value is None else seconds(value, name)


def kind_of(function: Callable[..., object], terms: Terms) -> Kind:
    """Where a function runs, as declared, or by what it is.

    Raises:
        MisuseError: It is no function, or one that cannot run where it is declared to.
    """
    is_coroutine = _is_coroutine_function(function)
    if terms.kind is None:
        return Kind.LOOP if is_coroutine else Kind.THREAD
    if is_coroutine and terms.kind is not Kind.LOOP:
        raise MisuseError(
            f"kind is {terms.kind}, but {name_of(function)} is a coroutine function",
            hint="coroutine functions run on the loop: leave kind out",
        )
    return terms.kind


def check_function(function: object) -> None:
    """Refuses what cannot be called as often as it takes, or whose call does nothing.

    Raises:
        MisuseError: It is a coroutine object, a generator function, or nothing that can be called.
    """
    if inspect.isawaitable(function):
        raise MisuseError(
            f"function is {function!r}, which can run only once",
            hint="give the function and its arguments: submit(fetch, url), not submit(fetch(url))",
        )
    if not callable(function):
        raise MisuseError(f"function is {function!r}", hint="give something that can be called")
    if _is_generator_function(function):
        raise MisuseError(
            f"{name_of(function)} is a generator function: a call of it does nothing yet",
            hint="iterate inside a function, and submit that one",
        )


def name_of(function: object) -> str:
    """What a function is called in outcomes, errors and traces."""
    name = getattr(function, "__qualname__", None)
    if name is None and hasattr(function, "func"):  # functools.partial
        name = getattr(function.func, "__qualname__", None)
    return str(name or type(function).__qualname__)


def _is_generator_function(function: Callable[..., object]) -> bool:
    code = getattr(function, "__code__", None)
    if isinstance(code, types.CodeType):
        return _generates(code.co_flags)
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its own flags are asked for
    code = getattr(function, "__code__", None) or getattr(call, "__code__", None)
    return isinstance(code, types.CodeType) and _generates(code.co_flags)


def _generates(flags: int) -> bool:
    """Whether a call gives a generator; one that `types.coroutine` has made is awaited instead."""
    return flags & _GENERATORS > 0 and not flags & inspect.CO_ITERABLE_COROUTINE


def _is_coroutine_function(function: Callable[..., object]) -> bool:
    code = getattr(function, "__code__", None)
    if isinstance(code, types.CodeType):
        return bool(code.co_flags & inspect.CO_COROUTINE)
    if inspect.iscoroutinefunction(function):  # functools.partial of one
        return True
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its own flags are asked for
    return inspect.iscoroutinefunction(call)
