"""The sandbox that templates run in.

It keeps a template from reaching anything but its variables. Against one that runs away there are
bounds on ranges, repetition, powers and widths. They catch mistakes; they do not stop a person who
sets out to burn the processor.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from jinja2 import StrictUndefined
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_LENGTH_LIMIT: Final = 1_000_000
_EXPONENT_LIMIT: Final = 1_000
_WIDE_FORMAT: Final = re.compile(r"%[^a-zA-Z%]*(?:\d{5,}|\*)").search
_WIDENING_METHODS: Final = frozenset(("ljust", "rjust", "center", "zfill", "expandtabs"))
_WIDENING_FILTERS: Final = ("center", "indent", "format", "batch", "slice")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match operator:
            case "**" if isinstance(right, int) and abs(right) > _EXPONENT_LIMIT:
                raise OverflowError(f"exponent {right} is over {_EXPONENT_LIMIT}")
            case "*" if _repeated_length(left, right) > _LENGTH_LIMIT:
                raise OverflowError(f"a text repeated to over {_LENGTH_LIMIT} characters")
            case "%":
                _check_widths((left,))
            case _:
                pass
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") in _WIDENING_METHODS:
            _check_widths(args)
        return super().call(context, function, *args, **kwargs)


def template_environment(*, html: bool) -> ImmutableSandboxedEnvironment:
    """A sandbox in which undefined names are errors and nothing can be loaded.

    Args:
        html: Whether values are escaped for HTML.
    """
    environment = _Environment(
        autoescape=html, undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0
    )
    # These two answer differently every time: another attempt would send another message.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    for name in _WIDENING_FILTERS:
        environment.filters[name] = _bounded(environment.filters[name])
    return environment


def _repeated_length(left: Any, right: Any) -> int:
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, str | list | tuple) and isinstance(right, int):
        return len(left) * right
    return 0


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_widths((*args, *kwargs.values()))
        return function(*args, **kwargs)

    return bounded


def _check_widths(values: tuple[Any, ...]) -> None:
    """Refuses what asks for a very wide text: a format, or a width as a number."""
    for value in values:
        if isinstance(value, str) and _WIDE_FORMAT(value):
            raise OverflowError("a format is wider than 9999 characters")
        if isinstance(value, int) and abs(value) > _LENGTH_LIMIT:
            raise OverflowError(f"a width of over {_LENGTH_LIMIT} characters")
