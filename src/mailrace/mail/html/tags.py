"""Start tags of an HTML source, found and changed in place."""

import re
from collections.abc import Iterable, Iterator
from html import escape, unescape
from html.parser import HTMLParser
from typing import Final

_TAG_NAME: Final = re.compile(r"<[^\s/>]+")
_ATTRIBUTE: Final = re.compile(
    r"""[\s/]*(?P<name>[^\s=/>"']+)(?:\s*=\s*(?P<value>"[^"]*"|'[^']*'|[^\s>"']+))?"""
)


class Span:
    """A piece of a source, by where it stands."""

    __slots__ = ("end", "source", "start")

    def __init__(self, start: int, source: str) -> None:
        self.start, self.source = start, source
        self.end = start + len(source)


class StartTag(Span):
    """A start tag as it was written."""

    __slots__ = ("name",)

    def __init__(self, start: int, source: str, name: str) -> None:
        super().__init__(start, source)
        self.name = name

    def attributes(self) -> Iterator[tuple[str, str]]:
        """Names in lower case, and values as they were written."""
        for found in _ATTRIBUTE.finditer(self.source, self._name_end()):
            yield found["name"].lower(), found["value"] or ""

    def attribute(self, name: str) -> str | None:
        """The value of an attribute, entities decoded; empty if it has none."""
        found = self._find(name)
        return None if found is None else unescape((found["value"] or "").strip("\"'"))

    def without_attribute(self, name: str) -> str:
        """The tag's source without an attribute."""
        found = self._find(name)
        return self._replaced(found, "") if found else self.source

    def with_attribute(self, name: str, value: str) -> str:
        """The tag's source with an attribute set."""
        found = self._find(name)
        quoted = escape(value, quote=False).replace('"', "&quot;")
        written = f' {name}="{quoted}"'
        if found:
            return self._replaced(found, written)
        end = self._name_end()
        return f"{self.source[:end]}{written}{self.source[end:]}"

    def _replaced(self, found: re.Match[str], written: str) -> str:
        return f"{self.source[: found.start()]}{written}{self.source[found.end() :]}"

    def _name_end(self) -> int:
        name = _TAG_NAME.match(self.source)
        return name.end() if name else len(self.source)

    def _find(self, name: str) -> re.Match[str] | None:
        attributes = _ATTRIBUTE.finditer(self.source, self._name_end())
        return next((found for found in attributes if found["name"].lower() == name), None)


class Finder(HTMLParser):
    """Finds the start tags, the end tags and the contents of style elements of a source.

    Attributes:
        events: Start tags, names of end tags and style contents, in their order.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", html))]
        self._style: StyleContent | None = None
        self.events: list[StartTag | StyleContent | str] = []
        self.feed(html)
        self.close()

    @property
    def start_tags(self) -> list[StartTag]:
        return [event for event in self.events if isinstance(event, StartTag)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        line, column = self.getpos()
        start = self._line_starts[line - 1] + column
        found = StartTag(start, self.get_starttag_text() or "", tag)
        self.events.append(found)
        self._style = None
        if tag == "style":
            self._style = StyleContent(found)
            self.events.append(self._style)

    def handle_endtag(self, tag: str) -> None:
        self._style = None
        self.events.append(tag)

    def handle_data(self, data: str) -> None:
        if self._style:
            self._style.extend(data)


class StyleContent(Span):
    """What stands between `<style>` and `</style>`."""

    __slots__ = ("tag",)

    def __init__(self, tag: StartTag) -> None:
        super().__init__(tag.end, "")
        self.tag = tag

    def extend(self, data: str) -> None:
        self.source += data
        self.end += len(data)


def replaced(source: str, changes: Iterable[tuple[Span, str]]) -> str:
    """The source with some pieces changed; they are in order and do not overlap."""
    pieces, position = [], 0
    for span, new in changes:
        pieces += [source[position : span.start], new]
        position = span.end
    return "".join([*pieces, source[position:]])
