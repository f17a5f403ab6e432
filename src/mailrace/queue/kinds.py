"""Kinds of jobs and what does them: the book of a program's handlers."""

import inspect
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_args, get_type_hints

from mailrace.errors import MisuseError
from mailrace.pool import Backoff, BreakerSettings, RetryPolicy, RetrySchedule
from mailrace.pool.options import Duration, seconds
from mailrace.queue.jobs import DEFAULT_QUEUE
from mailrace.queue.payloads import PayloadType

_Function = TypeVar("_Function", bound=Callable[..., Any])
CHUNK_MAX: Final = 100
_KIND_MAX: Final = 200
# Control characters, lone surrogates and what ends a line: no store or log keeps them all.
_NOT_IN_KINDS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """What a handler may know of its job: pass it on as a second parameter.

    Attributes:
        id: The same over all attempts: what makes a call to the far side idempotent.
        attempt: 1 for the first.
        deaths: How many processes died over it.
        created_ms: When it was enqueued, Unix milliseconds.
    """

    id: int
    kind: str
    queue: str
    tenant: str
    key: str | None
    batch_id: int | None
    attempt: int
    deaths: int
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of job.

    Attributes:
        name: The stable word that the stores keep.
        function: `async def` or ordinary; takes the payload, and the `JobInfo` if it has a second
            parameter. With `chunk` it takes lists of both and returns a list.
        where: On the `loop`, in a `thread` (the default for an ordinary function) or in a
            `process`.
        queue: Where its jobs go unless an enqueue says otherwise.
        retry: When a failed attempt is followed by another one.
        timeout_s: How long an attempt may take.
        at_most_once: An attempt without a result is not repeated: the job becomes uncertain.
        chunk: How many jobs a call is given at most; `None`: one, as it is.
        breaker: When the kind is not tried any more for a while; `None`: it always is.
        at_once: A first attempt that could not reach its far side is tried again at once.
        plain: A coroutine function that is given a payload and nothing more.
    """

    name: str
    function: Callable[..., Any]
    payload: PayloadType
    wants_info: bool
    where: Literal["loop", "thread", "process"]
    queue: str = DEFAULT_QUEUE
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(delays=RetrySchedule()))
    timeout_s: float | None = None
    at_most_once: bool = False
    chunk: int | None = None
    breaker: BreakerSettings | None = None
    at_once: bool = False
    plain: bool = False


class Handlers:
    """What a program's workers can do: register functions, and hand it to a worker.

    ```python
    handlers = Handlers()

    @handlers.register("invoice")
    async def make_invoice(invoice: Invoice) -> None: ...
    ```
    """

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def register(
        self,
        kind: str,
        *,
        queue: str = DEFAULT_QUEUE,
        retry: RetryPolicy | RetrySchedule | Backoff | str | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        chunk: int | None = None,
        where: Literal["loop", "thread", "process"] | None = None,
        breaker: BreakerSettings | None = None,
    ) -> Callable[[_Function], _Function]:
        """Has a function do the jobs of a kind.

        It returns a value (kept as the job's result if JSON can hold it), or one of `Retry`,
        `Snooze`, `SlowDown`, `Cancel`, `Fail`; raising is a failure. The annotation of its first
        parameter is the type of the payload, checked at enqueue and again before it runs.

        Args:
            kind: The stable word that the stores keep.
            retry: A policy, delays such as `"1m,5m,1h"`, or `"none"`; if not given, after 5, 15,
                45 and 135 minutes, and first at once where the far side could not be reached.
            timeout: How long an attempt may take; then it has failed.
            at_most_once: An attempt without a result is not repeated: the job becomes uncertain.
            chunk: Give the function a list of up to so many payloads; it returns a list of as many
                answers. At most 100.
            where: `loop`, `thread` or `process`.
            breaker: After so many failures none of the kind is tried for a while: its jobs are
                put off, and no attempt is counted.

        Raises:
            MisuseError: Something given is wrong, or there is a handler for the kind.
        """
        given: object = kind
        if callable(given):
            raise MisuseError(
                f"{getattr(given, '__name__', given)!r} was registered without a kind",
                hint='write @handlers.register("kind")',
            )

        def add(function: _Function) -> _Function:
            self.add(
                kind,
                function,
                queue=queue,
                retry=retry,
                timeout=timeout,
                at_most_once=at_most_once,
                chunk=chunk,
                where=where,
                breaker=breaker,
            )
            return function

        return add

    def add(
        self,
        kind: str,
        function: Callable[..., Any],
        *,
        queue: str = DEFAULT_QUEUE,
        retry: RetryPolicy | RetrySchedule | Backoff | str | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        chunk: int | None = None,
        where: Literal["loop", "thread", "process"] | None = None,
        breaker: BreakerSettings | None = None,
    ) -> Kind:
        """As `register`, for a function that is there already."""
        check_kind(kind)
        if kind in self._kinds:
            raise MisuseError(
                f"there is a handler for {kind!r} already", hint="register each kind once"
            )
        if chunk is not None and not 1 <= chunk <= CHUNK_MAX:
            raise MisuseError(f"chunk of {kind!r} is {chunk}", hint=f"give 1 to {CHUNK_MAX}")
        place: object = queue
        if not isinstance(place, str) or not place or not place.isprintable():
            raise MisuseError(f"queue of {kind!r} is {queue!r}", hint="give one line of text")
        if breaker is not None and not isinstance(breaker, BreakerSettings):
            raise MisuseError(f"breaker of {kind!r} is {breaker!r}", hint="give BreakerSettings")
        payload, wants_info = _parameters(kind, function, chunk=chunk is not None)
        is_coroutine = _is_coroutine(function)
        self._kinds[kind] = found = Kind(
            name=kind,
            function=function,
            payload=payload,
            wants_info=wants_info,
            where=_place(kind, function, where),
            queue=queue,
            retry=_policy(retry),
            timeout_s=None if timeout is None else seconds(timeout, "timeout"),
            at_most_once=at_most_once,
            chunk=chunk,
            breaker=breaker,
            at_once=retry is None,
            plain=is_coroutine and timeout is None and not wants_info,
        )
        return found

    def __contains__(self, kind: str) -> bool:
        return kind in self._kinds

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def get(self, kind: str) -> Kind | None:
        return self._kinds.get(kind)

    def of(self, function: Callable[..., Any]) -> Kind:
        """The kind that a function does.

        Raises:
            MisuseError: It is not registered.
        """
        for kind in self._kinds.values():
            if kind.function is function:
                return kind
        raise MisuseError(
            f"{getattr(function, '__name__', function)!r} is no handler",
            hint="register it, or give the name of a kind",
        )


def check_kind(kind: object) -> None:
    """Refuses a word that cannot be kept.

    Raises:
        MisuseError: It is empty, too long, no text, or has characters that no line of text has.
    """
    if not isinstance(kind, str) or not 1 <= len(kind) <= _KIND_MAX or not _is_line(kind):
        raise MisuseError(
            f"kind is {repr(kind)[:_KIND_MAX]}",
            hint=f"give one line of text, 1 to {_KIND_MAX} characters",
        )


def _is_line(text: str) -> bool:
    return text.isprintable() or not any(
        unicodedata.category(character) in _NOT_IN_KINDS for character in text
    )


def _place(
    kind: str, function: Callable[..., Any], where: str | None
) -> Literal["loop", "thread", "process"]:
    is_coroutine = _is_coroutine(function)
    if where is None:
        return "loop" if is_coroutine else "thread"
    if where not in {"loop", "thread", "process"}:
        raise MisuseError(f"where of {kind!r} is {where!r}", hint="give loop, thread or process")
    if is_coroutine and where != "loop":
        raise MisuseError(
            f"the handler of {kind!r} is a coroutine function", hint="it runs on the loop"
        )
    if where == "loop":
        return "loop"
    return "thread" if where == "thread" else "process"


def _is_coroutine(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(_underlying(function))


def _underlying(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that is called in the end: of a partial one, of an object with `__call__`."""
    while isinstance(function, partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    found: Callable[..., Any] = type(function).__call__
    return found


def _policy(retry: RetryPolicy | RetrySchedule | Backoff | str | None) -> RetryPolicy:
    if isinstance(retry, RetryPolicy):
        return retry
    if isinstance(retry, str):
        retry = RetrySchedule.parse(retry)
    return RetryPolicy(delays=RetrySchedule() if retry is None else retry)


def _parameters(
    kind: str, function: Callable[..., Any], *, chunk: bool
) -> tuple[PayloadType, bool]:
    """The type of a handler's payload, and whether it wants to know its job."""
    if not callable(function):
        raise MisuseError(f"the handler of {kind!r} is {function!r}", hint="give a function")
    found = _positional(kind, function)
    try:
        hints = get_type_hints(_underlying(function), include_extras=True)
    except Exception as error:
        raise MisuseError(
            f"the annotations of the handler of {kind!r} cannot be read: {error}",
            hint="import the types that they name",
        ) from error
    annotation = hints.get(found[0].name, Any)
    if chunk and annotation is not Any:
        annotation = _item(kind, annotation)
    wants_info = len(found) > 1 and found[1].default is inspect.Parameter.empty
    return PayloadType(annotation), wants_info


def _positional(kind: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a handler's arguments go to."""
    every = inspect.signature(function).parameters.values()
    places = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    found = [parameter for parameter in every if parameter.kind in places]
    if not found:
        raise MisuseError(f"the handler of {kind!r} takes nothing", hint="let it take the payload")
    rest = [*found[2:], *(one for one in every if one.kind is inspect.Parameter.KEYWORD_ONLY)]
    for parameter in rest:
        if parameter.default is inspect.Parameter.empty:
            raise MisuseError(
                f"the handler of {kind!r} wants {parameter.name!r}, which nobody gives it",
                hint="it is given the payload, and the JobInfo if it has a second parameter",
            )
    return found


def _item(kind: str, annotation: Any) -> Any:
    arguments: tuple[Any, ...] = get_args(annotation)
    if len(arguments) != 1:
        raise MisuseError(
            f"the handler of {kind!r} takes chunks and its payload is {annotation}",
            hint="annotate it as list[...] of one payload's type",
        )
    return arguments[0]
