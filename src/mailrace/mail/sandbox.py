"""The sandbox that templates run in.

It keeps a template from reaching anything but its variables. Against one that runs away there are
bounds on ranges, repetition, powers and widths. They catch mistakes; they do not stop a person who
sets out to burn the processor.
"""

import re
from collections.abc import Callable, Iterator
from functools import wraps
from html import unescape
from typing import Any, Final

from jinja2 import StrictUndefined, Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

_LENGTH_LIMIT: Final = 1_000_000
_EXPONENT_LIMIT: Final = 1_000
_WIDE_FORMAT: Final = re.compile(r"%[^a-zA-Z%]*(?:\d{5,}|\*)").search
_LINE_BREAK: Final = re.compile(r"<br\b[^<>]*>\n?|</p\s*>(?!\s*$)", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[a-zA-Z][^<>]*>|<!--(?:(?!<!--).)*?-->", re.DOTALL)
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


def template_environment(*, html: bool, from_html: bool = False) -> ImmutableSandboxedEnvironment:
    """A sandbox in which undefined names are errors and nothing can be loaded.

    Args:
        html: Whether values are escaped for HTML.
        from_html: Whether the template was made from an HTML one: what is HTML in it (`| e`,
            `| safe`) comes out as the text that it shows.
    """
    environment = _Environment(
        autoescape=html,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        cache_size=0,
        finalize=_shown_as_text if from_html else _shown,
    )
    # The names of these would hide that a column is missing, and they have no use in a mail.
    for name in ("joiner", "cycler", "dict"):
        del environment.globals[name]
    # These two answer differently every time: another attempt would send another message.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    for name in _WIDENING_FILTERS:
        environment.filters[name] = _bounded(environment.filters[name])
    return environment


def _shown(value: Any) -> Any:
    """Lets only through what is a value; asked for every value of every message."""
    if value.__class__ is str or isinstance(value, str | Undefined):
        return value
    if callable(value):
        name = getattr(value, "__name__", None) or getattr(value, "name", None) or "loop"
        # The sandbox has a range of its own.
        name = name.removeprefix("safe_")
        raise SecurityError(f"to print {name}, which is no value; did you mean {name}()?")
    if isinstance(value, Iterator):
        raise SecurityError("to print a list that is not made yet; add | join(', ')")
    return value


def _shown_as_text(value: Any) -> Any:
    if isinstance(value, Markup):
        return unescape(_TAG.sub("", _LINE_BREAK.sub("\n", str(value))))
    return _shown(value)


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
