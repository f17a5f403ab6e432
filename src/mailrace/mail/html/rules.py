"""Rules of a style sheet that a template decides about when it is filled in."""

import re
from typing import Final

_TOKEN: Final = re.compile(r"""/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]""", re.DOTALL)
_NOT_SELECTOR: Final = re.compile(r"""/\*.*?\*/|\[(?:[^\[\]"']|"[^"]*"|'[^']*')*\]""", re.DOTALL)
_COMMA: Final = re.compile(r",(?![^(]*\))")
_BY_POSITION: Final = re.compile(r":(?:nth-|first-|last-|only-|empty\b)|[+~]").search


def without_positions(css: str) -> str:
    """A style sheet without the selectors that ask where among others an element stands.

    Those are `:nth-child()` and its like, and `a + b` and `a ~ b`: of rows that a template repeats
    or leaves out, the one row in it can not tell. What is in `@` rules stays.
    """
    pieces, depth, start, opened = [], 0, 0, 0
    for token in _TOKEN.finditer(css):
        match token.group():
            case "{":
                opened = token.start() if not depth else opened
                depth += 1
            case "}" if depth:
                depth -= 1
                if not depth:
                    pieces.append(_kept(css[start:opened], css[opened : token.end()]))
                    start = token.end()
            case ";" if not depth:
                pieces.append(css[start : token.end()])
                start = token.end()
            case _:
                pass
    return "".join([*pieces, css[start:]])


def _kept(selectors: str, declarations: str) -> str:
    bare = _NOT_SELECTOR.sub("", selectors)
    if bare.lstrip().startswith("@") or not _BY_POSITION(bare):
        return selectors + declarations
    kept = [
        selector
        for selector in _COMMA.split(selectors)
        if not _BY_POSITION(_NOT_SELECTOR.sub("", selector))
    ]
    return ",".join(kept) + declarations if kept else ""
