"""HTML with its template tags masked, so that an HTML parser takes them for plain words."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from jinja2 import TemplateSyntaxError

from mailrace.errors import MisuseError
from mailrace.mail.sandbox import template_environment


class TagKind(StrEnum):
    """What a template tag does."""

    VALUE = "value"
    STATEMENT = "statement"
    COMMENT = "comment"
    RAW = "raw"


class TemplateTag(NamedTuple):
    """A template tag as it stands in the source."""

    kind: TagKind
    source: str


_BEGINNINGS: Final = {
    "variable_begin": TagKind.VALUE,
    "block_begin": TagKind.STATEMENT,
    "comment_begin": TagKind.COMMENT,
    "raw_begin": TagKind.RAW,
    "raw_end": TagKind.RAW,
}
_ENDINGS: Final = frozenset(("variable_end", "block_end", "comment_end", "raw_begin", "raw_end"))


class MaskedHtml:
    """An HTML template in which each template tag is a word such as `tag0x12x`.

    Attributes:
        html: The masked HTML.
        tags: Template tags by number.
        word: Finds a mask; its group 1 is the number.
    """

    def __init__(self, source: str) -> None:
        """Masks a source.

        Raises:
            MisuseError: A template tag is wrong; with the line.
        """
        stem = "tag0x"
        while stem in source.lower():
            stem = f"q{stem}"
        self._stem = stem
        self.word = re.compile(f"{stem}([0-9]+)x", re.IGNORECASE)
        self.tags: list[TemplateTag] = []
        self.html = "".join(self._masked(source))

    def _masked(self, source: str) -> Iterator[str]:
        inside: list[str] = []
        kind: TagKind | None = None
        opened = 0
        for line, token, text in _tokens(source):
            if token in _BEGINNINGS:
                kind, opened = _BEGINNINGS[token], line
            if kind is None:
                yield text
                continue
            inside.append(text)
            if token in _ENDINGS:
                yield self._mask(kind, inside)
                inside, kind = [], None
        if kind is TagKind.COMMENT:
            # Jinja2 lets a comment that begins at the very end pass.
            yield self._mask(kind, inside)
        elif kind is not None:
            raise MisuseError(f"html line {opened}: a template tag is not closed")

    def _mask(self, kind: TagKind, source: list[str]) -> str:
        self.tags.append(TemplateTag(kind, "".join(source)))
        return f"{self._stem}{len(self.tags) - 1}x"

    def tag(self, word: re.Match[str]) -> TemplateTag:
        """The tag behind a mask."""
        return self.tags[int(word.group(1))]

    def unmasked(self, text: str) -> str:
        """The text with every mask turned back into its tag."""
        return self.word.sub(lambda word: self.tag(word).source, text)


def _tokens(source: str) -> list[tuple[int, str, str]]:
    try:
        return list(template_environment(html=True).lex(source))
    except TemplateSyntaxError as error:
        raise MisuseError(f"html line {error.lineno}: {error.message}") from error
