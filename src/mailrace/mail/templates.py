"""Templates: Jinja2, sandboxed and strict, with errors that name the part and the columns."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice
from types import CodeType
from typing import Any, Final

from jinja2 import TemplateSyntaxError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mailrace.errors import MisuseError

_PIECES_LIMIT: Final = 200_000
_COLUMNS_SHOWN: Final = 20
_UNDEFINED_NAME: Final = re.compile(r"'(\w+)' is undefined").fullmatch
_COMMENT_HINT: Final = "{# begins a template comment: in CSS put a space between { and #"
_ABOUT_MISSING: Final = ("defined", "undefined", "default", "d")
_NEEDS_LOADER: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class UnfitValueError(MisuseError):
    """A template came out with something that cannot be sent: the row's fault, not its own."""


class CompiledTemplate:
    """A template, ready to be filled in.

    Attributes:
        part: What of the message it is, for errors: `subject`, `html`, `header X-Team`.
        wanted: Variables that it may look up.
        required: Those of them that it does not prepare to miss, by `is defined` or `default`.
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
        "required",
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
            hint = _COMMENT_HINT if "comment" in problem else ""
            raise MisuseError(f"{part} line {error.lineno}: {problem}", hint=hint) from error
        except RecursionError as error:
            raise MisuseError(f"{part}: the template is nested too deeply") from error
        self.wanted = frozenset(find_undeclared_variables(tree) - set(environment.globals))
        self.required = self.wanted - _prepared_for(tree)
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

    def check_columns(self, columns: Collection[str]) -> None:
        """Looks for unknown names, also where a template seldom comes.

        Raises:
            MisuseError: It has one; the first is named with part and line.
        """
        unknown = self.required.difference(columns)
        if unknown:
            raise self._unknown(min(unknown, key=self._place), columns)

    def _place(self, name: str) -> tuple[int, str]:
        return self.lines.get(name, 0), name

    def _unknown(self, name: str, columns: Collection[str]) -> MisuseError:
        line = f" line {self.lines[name]}" if name in self.lines else ""
        return MisuseError(
            f"{self.part}{line}: no column named {name!r}", hint=_near(name, columns)
        )

    def explain(self, error: Exception, columns: Collection[str]) -> MisuseError:
        """What went wrong while filling in, for people."""
        where = self.part
        if isinstance(error, MisuseError):
            # Some name the header themselves: once is enough.
            head, _, problem = error.problem.partition(": ")
            named = problem and where.lower().endswith(head.lower())
            return UnfitValueError(
                f"{where}: {problem if named else error.problem}", hint=error.hint
            )
        if isinstance(error, SecurityError):
            return MisuseError(f"{where}: not allowed in a template: {error}")
        unknown = _UNDEFINED_NAME(str(error)) if isinstance(error, UndefinedError) else None
        if unknown:
            return self._unknown(unknown.group(1), columns)
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


def _prepared_for(tree: nodes.Template) -> set[str]:
    """Variables that may be missing, as the template itself says somewhere."""
    asked = [
        node.node
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if node.name in _ABOUT_MISSING
    ]
    return {node.name for node in asked if isinstance(node, nodes.Name)}


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
