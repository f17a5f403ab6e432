"""A text part made from an HTML template; itself a template."""

import re
from html.parser import HTMLParser
from typing import Final

from mailrace.mail.html.masking import MaskedHtml, TagKind

_SKIPPED: Final = frozenset(("head", "style", "script", "title", "template", "noscript", "svg"))
_PARAGRAPHS: Final = frozenset(
    ("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "pre", "hr", "dl")
)
_LINES: Final = frozenset(
    (
        "div",
        "section",
        "article",
        "header",
        "footer",
        "main",
        "nav",
        "aside",
        "li",
        "tr",
        "dt",
        "dd",
        "address",
        "form",
        "center",
        "figure",
        "figcaption",
        "fieldset",
        "body",
        "tbody",
        "thead",
        "tfoot",
    )
)
_CELLS: Final = frozenset(("td", "th"))
_LINK: Final = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE).match
_STATEMENT_WORD: Final = re.compile(r"\{%[-+]?\s*(\w+)").match
_NOT_ITSELF: Final = re.compile(r"\s+|\|\s*(?:e|escape|safe)\b")
_SPACE: Final = re.compile(r"[ \t\r\n\f]+")
_TEMPLATE_OPENING: Final = re.compile(r"\{[{%#]")


def html_to_text(html: str) -> str:
    """A text template that says what an HTML template says.

    Links become `words (address)`, list items lines with a dash or number, table rows lines; style
    and script are left out. Template tags stay where they are. White space is that of HTML.

    Raises:
        MisuseError: A template tag is wrong; with the line.
    """
    masked = MaskedHtml(html)
    writer = _Writer(masked)
    writer.feed(masked.html)
    writer.close()
    text = _TEMPLATE_OPENING.sub(r"{{ '\g<0>' }}", writer.text())
    return masked.word.sub(lambda word: _kept(masked, word), text)


def _kept(masked: MaskedHtml, word: re.Match[str]) -> str:
    tag = masked.tag(word)
    return tag.source if tag.kind in (TagKind.VALUE, TagKind.STATEMENT) else ""


class _List:
    """A list being written; items that a template repeats are not numbered."""

    __slots__ = ("number", "ordered")

    def __init__(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self.number = 0

    def mark(self) -> str:
        self.number += 1
        return f"{self.number}. " if self.ordered else "- "


class _Writer(HTMLParser):
    """Writes words as they come; breaks and spaces wait until something follows them.

    A template statement is written where it stands, after the break that waits: so a loop's body
    ends in its own line ends, and a branch not taken leaves none behind.
    """

    def __init__(self, masked: MaskedHtml) -> None:
        super().__init__()
        self._masked = masked
        self._out: list[str] = []
        self._line_ends = 2
        self._wanted = 0
        self._space = False
        self._skipping = 0
        self._preformatted = 0
        self._lists: list[_List] = []
        self._links: list[tuple[str, int]] = []
        # Statements that were opened inside a start tag and are not closed.
        self._torn = 0

    def text(self) -> str:
        text = "".join(self._out)
        return text if text and self._line_ends else text.rstrip() + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._break_for(tag)
        self._write_statements_of(tag, attrs)
        if tag == "body":
            # It ends a head that has no end tag.
            self._skipping = 0
        elif tag in _SKIPPED:
            self._skipping += 1
        match tag:
            case "br":
                self._wanted = min(max(self._wanted, self._line_ends) + 1, 2)
            case "hr":
                self._write("---")
                self._break_for(tag)
            case "ul" | "ol":
                self._lists.append(_List(ordered=tag == "ol"))
            case "li":
                self._write_mark()
            case "pre":
                self._preformatted += 1
            case "a":
                address = self._branches(attrs) or values.get("href") or ""
                self._links.append((address, len(self._out)))
            case "img":
                self._write_words(values.get("alt") or "")
            case _:
                pass

    def handle_endtag(self, tag: str) -> None:
        match tag:
            case "ul" | "ol" if self._lists:
                self._lists.pop()
            case "pre":
                self._preformatted = max(0, self._preformatted - 1)
            case "a" if self._links:
                self._write_link(*self._links.pop())
            case _:
                pass
        if tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        self._break_for(tag)

    def handle_data(self, data: str) -> None:
        position = 0
        for word in self._masked.word.finditer(data):
            if self._masked.tag(word).kind is not TagKind.VALUE:
                self._write_words(data[position : word.start()])
                self._write_statement(word)
                position = self._after_torn(data, word)
        self._write_words(data[position:])

    def handle_comment(self, data: str) -> None:
        for word in self._masked.word.finditer(data):
            self._write_statement(word)

    def _write_statements_of(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Writes what stands inside a start tag; of a link it becomes part of the address."""
        words = list(self._masked.word.finditer(self.get_starttag_text() or ""))
        opened = sum(map(self._opens, words))
        if tag == "a" and not opened and self._branches(attrs):
            return
        for word in words:
            self._write_statement(word)
        self._torn += max(0, opened)

    def _branches(self, attrs: list[tuple[str, str | None]]) -> str:
        """Where a link leads if statements in its start tag decide it, with them; else nothing."""
        pieces, depth, decided = [], 0, False
        for name, value in attrs:
            words = [*self._masked.word.finditer(name), *self._masked.word.finditer(value or "")]
            depth += sum(map(self._opens, self._masked.word.finditer(name)))
            if self._masked.word.sub("", name) == "href":
                decided = decided or depth > 0
                pieces += [word.group() for word in self._masked.word.finditer(name)]
                pieces.append(value or "")
            else:
                pieces += [word.group() for word in words if self._is_statement(word)]
            depth += sum(map(self._opens, self._masked.word.finditer(value or "")))
        return "".join(pieces) if decided else ""

    def _after_torn(self, data: str, word: re.Match[str]) -> int:
        """Where the text goes on: another branch may bring the rest of a start tag first."""
        if not self._torn:
            return word.end()
        self._torn += min(0, self._opens(word))
        is_branch = self._statement_word(word) in ("else", "elif")
        return data.find(">", word.end()) + 1 or word.end() if is_branch else word.end()

    def _opens(self, word: re.Match[str]) -> int:
        """1 for a statement that must be closed, -1 for one that closes."""
        begun = self._statement_word(word)
        return -1 if begun.startswith("end") else 1 if begun in ("if", "for") else 0

    def _statement_word(self, word: re.Match[str]) -> str:
        found = _STATEMENT_WORD(self._masked.tag(word).source)
        return found.group(1) if found else ""

    def _is_statement(self, word: re.Match[str]) -> bool:
        return self._masked.tag(word).kind is TagKind.STATEMENT

    def _break_for(self, tag: str) -> None:
        if tag in _PARAGRAPHS and not (self._lists and tag in ("ul", "ol")):
            self._wanted = 2
        elif tag in _LINES or tag in _PARAGRAPHS:
            self._wanted = max(self._wanted, 1)
        elif tag in _CELLS:
            self._space = True

    def _write_words(self, data: str) -> None:
        if self._skipping:
            return
        if self._preformatted:
            self._write(data.removeprefix("\n") if self._wanted else data)
            return
        words = _SPACE.sub(" ", data.replace("\xa0", " "))
        self._space = self._space or words.startswith(" ")
        if words.strip(" "):
            self._write(words.strip(" "))
            self._space = words.endswith(" ")

    def _write_mark(self) -> None:
        if not self._skipping:
            mark = self._lists[-1].mark() if self._lists else "- "
            self._write("  " * (len(self._lists) - 1) + mark)
            # Nothing between the mark and the item, not even the break of a paragraph in it.
            self._line_ends = 2

    def _write_link(self, address: str, start: int) -> None:
        words = "".join(self._out[start:]).strip()
        bare = address.removeprefix("mailto:").removeprefix("tel:")
        known = self._itself(words) in (self._itself(address), self._itself(bare))
        if not known and (_LINK(address) or self._masked.word.match(address)):
            self._space = bool(words)
            self._write_words(f"({address})" if words else address)

    def _itself(self, words: str) -> str:
        return _NOT_ITSELF.sub("", self._masked.unmasked(words))

    def _write_statement(self, word: re.Match[str]) -> None:
        if self._masked.tag(word).kind is TagKind.STATEMENT:
            if "for" in self._masked.tag(word).source.split():
                for level in self._lists:
                    level.ordered = False
            self._flush()
            self._out.append(word.group())

    def _write(self, text: str) -> None:
        self._flush()
        self._out.append(text)
        self._line_ends = 0

    def _flush(self) -> None:
        if self._wanted > self._line_ends:
            self._out.append("\n" * (self._wanted - self._line_ends))
            self._line_ends = self._wanted
        elif self._space and not self._line_ends:
            self._out.append(" ")
        self._wanted, self._space = 0, False
