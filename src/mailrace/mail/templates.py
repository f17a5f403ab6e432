"""Templates: Jinja2, sandboxed and strict, with errors that name the part and the columns there are.

The sandbox keeps a template from reaching anything but its variables. Against one that runs away
there are bounds on ranges, repetition, powers and pieces. They catch mistakes; they do not stop a
person who sets out to burn the processor.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice
from types import CodeType
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from mailrace.errors import MisuseError

_LENGTH_LIMIT: Final = 1_000_000
_EXPONENT_LIMIT: Final = 1_000
_PIECES_LIMIT: Final = 200_000
_COLUMNS_SHOWN: Final = 20
_UNDEFINED_NAME: Final = re.compile(r"'(\w+)' is undefined").fullmatch
_WIDE_FORMAT: Final = re.compile(r"%[^a-zA-Z%]*(?:\d{5,}|\*)").search
_NEEDS_LOADER: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with bounds on what one operator may make."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match operator:
            case "**" if isinstance(right, int) and abs(right) > _EXPONENT_LIMIT:
                raise OverflowError(f"exponent {right} is over {_EXPONENT_LIMIT}")
            case "*" if _repeated_length(left, right) > _LENGTH_LIMIT:
                raise OverflowError(f"a text repeated to over {_LENGTH_LIMIT} characters")
            case "%" if isinstance(left, str) and _WIDE_FORMAT(left):
                raise OverflowError("a format is wider than 9999 characters")
            case _:
                return super().call_binop(context, operator, left, right)


def _repeated_length(left: Any, right: Any) -> int:
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, str | list | tuple) and isinstance(right, int):
        return len(left) * right
    return 0


def template_environment(*, html: bool) -> ImmutableSandboxedEnvironment:
    """The sandbox that all templates run in.

    Args:
        html: Whether values are escaped for HTML.
    """
    environment = _Environment(
        autoescape=html, undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0
    )
    # These two answer differently every time: another attempt would send another message.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    return environment


class CompiledTemplate:
    """A template, ready to be filled in.

    Attributes:
        part: What of the message it is, for errors: `subject`, `html`, `header X-Team`.
        wanted: Variables that it may look up.
        constant: The text, if there is nothing in the template to fill in.
        constants: Strings in the template, among them every piece that is the same for everyone.
        lines: Variable to the first line that uses it.
    """

    __slots__ = (
        "_blocks",
        "_environment",
        "_root",
        "constant",
        "constants",
        "lines",
        "part",
        "wanted",
    )

    def __init__(
        self,
        part: str,
        source: str,
        environment: ImmutableSandboxedEnvironment,
        lines: Mapping[str, int] | None = None,
    ) -> None:
        """Compiles a source.

        Args:
            part: What of the message it is, for errors.
            source: Jinja2 template.
            environment: From `template_environment`; may be shared.
            lines: Where the variables stand in what the caller wrote, if `source` was made from it.

        Raises:
            MisuseError: With the part, the line and the problem.
        """
        self.part = part
        try:
            tree = environment.parse(source)
            _check_self_contained(part, tree)
            template = environment.from_string(tree)
        except TemplateSyntaxError as error:
            problem = _one_line(error.message or "")
            raise MisuseError(f"{part} line {error.lineno}: {problem}") from error
        except RecursionError as error:
            raise MisuseError(f"{part}: the template is nested too deeply") from error
        self.wanted = frozenset(find_undeclared_variables(tree) - set(environment.globals))
        self.lines = _first_lines(tree) if lines is None else lines
        self.constant = _constant_text(tree)
        self._environment = environment
        self._root, self._blocks = template.root_render_func, template.blocks
        codes = [self._root.__code__, *(block.__code__ for block in self._blocks.values())]
        self.constants = frozenset(chain.from_iterable(map(_string_constants, codes)))

    def pieces(self, names: dict[str, Any]) -> Iterator[str]:
        """The filled-in text in pieces; those in `constants` are equal to it.

        What a template raises comes out as it is: `explain` makes an error for people from it.

        Args:
            names: Globals of the environment and variables. Not changed.
        """
        pieces = self._root(Context(self._environment, names, None, self._blocks))
        return chain(islice(pieces, _PIECES_LIMIT), _overrun(pieces))

    def render(self, variables: Mapping[str, object]) -> str:
        """The filled-in text.

        Raises:
            MisuseError: With the part and the problem.
        """
        try:
            return "".join(self.pieces({**self._environment.globals, **variables}))
        except Exception as error:
            raise self.explain(error, variables) from error

    def explain(self, error: Exception, columns: Collection[str]) -> MisuseError:
        """What went wrong while filling in, for people."""
        where = self.part
        if isinstance(error, MisuseError):
            return MisuseError(f"{where}: {error.problem}", hint=error.hint)
        if isinstance(error, SecurityError):
            return MisuseError(f"{where}: not allowed in a template: {error}")
        unknown = _UNDEFINED_NAME(str(error)) if isinstance(error, UndefinedError) else None
        if unknown:
            name = unknown.group(1)
            line = f" line {self.lines[name]}" if name in self.lines else ""
            return MisuseError(
                f"{where}{line}: no column named {name!r}", hint=_near(name, columns)
            )
        return MisuseError(f"{where}: {type(error).__name__}: {_one_line(str(error))}")


def _check_self_contained(part: str, tree: nodes.Template) -> None:
    for node in tree.find_all(_NEEDS_LOADER):
        raise MisuseError(
            f"{part} line {node.lineno}: one template cannot use another",
            hint="put everything into one file",
        )


def _constant_text(tree: nodes.Template) -> str | None:
    """The text of a template that has nothing but text."""
    text = []
    for node in tree.body:
        if not isinstance(node, nodes.Output):
            return None
        for piece in node.nodes:
            if not isinstance(piece, nodes.TemplateData):
                return None
            text.append(piece.data)
    return "".join(text)


def _first_lines(tree: nodes.Template) -> dict[str, int]:
    lines: dict[str, int] = {}
    for node in tree.find_all(nodes.Name):
        lines[node.name] = min(node.lineno, lines.get(node.name, node.lineno))
    return lines


def _string_constants(code: CodeType) -> Iterator[str]:
    waiting: list[Any] = list(code.co_consts)
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case tuple(constants):
                waiting += constants
            case CodeType() as nested:
                waiting += nested.co_consts
            case _:
                pass


def _overrun(pieces: Iterator[str]) -> Iterator[str]:
    for _ in pieces:
        raise OverflowError(f"more than {_PIECES_LIMIT} pieces of text")
    yield from ()


def _near(name: str, columns: Collection[str]) -> str:
    if not columns:
        return "there are no columns"
    shown = [str(column) for column in columns]
    more = ", …" if len(shown) > _COLUMNS_SHOWN else ""
    listed = f"the columns are {', '.join(shown[:_COLUMNS_SHOWN])}{more}"
    near = difflib.get_close_matches(name, shown, n=1)
    return f"did you mean {near[0]!r}? {listed}" if near else listed


def _one_line(text: str) -> str:
    return " ".join(text.split())
