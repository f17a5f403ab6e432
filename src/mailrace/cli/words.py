"""Durations, rates and addresses the way people read them."""

import re

_LOGIN = re.compile(r"(://[^\s:@/?#]*):[^\s@/?#]+@")


def span(seconds: float) -> str:
    """A duration: `0.4 s`, `8 s`, `4 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def pace(rate: float) -> str:
    """A rate given in messages a second: `1,200/s`, `2.5/s`, `30/min`."""
    if rate >= 9.95:
        return f"{rate:,.0f}/s"
    if rate >= 0.95:
        return f"{rate:.1f}/s"
    return f"{rate * 60:.0f}/min" if rate else "0/s"


def without_passwords(text: str) -> str:
    """The text with `PASSWORD` for every password in a URL."""
    return _LOGIN.sub(r"\1:PASSWORD@", text)


def printable(text: str) -> str:
    """One line with nothing in it that steers a terminal: replies come from strangers."""
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else "\ufffd"
